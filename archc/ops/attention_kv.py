"""Attention to the keys and values of an earlier layer.

Sources: cross-layer attention, arXiv:2405.12981; YOCO, arXiv:2405.05254; shared between neighbours in Hymba,
arXiv:2411.13676.
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Op, Printer, Result
from archc.ir.values import BATCH, TIME, Axis, State, Value
from archc.ops.attention import Attention

KV = "kv"  # what layers call the keys and values that they hand on


@dataclass(frozen=True, kw_only=True)
class KeysValues(Op):
    """Keys and values as later layers take them: with what this layer's state holds of earlier tokens."""

    window: int | None = None

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((BATCH, TIME), "kv"),)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".attention_kv", "keys_values"),)

    def code(self, p: Printer) -> str:
        window = "" if self.window is None else f"window={self.window}, "
        return f"keys_values({', '.join(p.inputs)}, {window}{p.held('kv')})"

    @property
    def is_view(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return "keys_values" + ("" if self.window is None else f" window={self.window}")


@dataclass(frozen=True, kw_only=True)
class AttentionTo(Attention):
    """Attention of q to the keys and values of an earlier layer, which keeps them between tokens for both."""

    def state(self) -> tuple[State, ...]:
        return ()

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".attention_kv", "attention_to"),)

    def code(self, p: Printer) -> str:
        return f"attention_to({', '.join(p.inputs)}, {self.options}, positions={p.positions})"

    @property
    def label(self) -> str:
        return super().label.replace("attention", "attention_to", 1)


def hand_on(b: Body, k: Value, v: Value, window: int | None) -> None:
    """Let later layers attend to k and v, if the model has some that do."""
    if KV in b.carried:
        b.carried[KV] = b.call_it(b.one(KeysValues(window=window), k, v), KV)


def attention_to(
    b: Body, q: Value, *, kv_heads: Axis, d_head_v: Axis, scale: float, window: int | None, cap: float | None
) -> Value:
    op = AttentionTo(scale=scale, window=window, cap=cap, kv_heads=kv_heads, d_head=q.width, d_head_v=d_head_v)
    return b.one(op, q, b.carried[KV])
