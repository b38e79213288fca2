"""Attention over latents that keys and values are projected from. Source: DeepSeek-V2, arXiv:2405.04434.

k[h] = (W_k[h] c, k_rope),  v[h] = W_v[h] c;    y[h] = softmax(scale (q_nope[h], q_rope[h]) k[h]ᵀ) v[h]

Only c and k_rope are kept between tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Flops, Module, Op, Printer, Result
from archc.ir.size import Size, mul
from archc.ir.tape import Tape
from archc.ir.values import BATCH, Axis, State, Value, Weight, numel
from archc.ops.attention import CONTEXT, causal_pairs
from archc.ops.linear import DEFAULT_INIT, kept_product


@dataclass(frozen=True, kw_only=True)
class LatentAttention(Op):
    """Inputs q_nope `[B, T, H, K]`, q_rope `[B, T, H, R]`, c `[B, T, rank]`, k_rope `[B, T, 1, R]`.

    Owns the projection `path` `[H (K + V), rank]`, each head's key rows before its value rows.
    """

    path: str
    n_heads: Axis
    d_head: Axis
    d_rope: Axis
    d_head_v: Axis
    kv_rank: Axis
    scale: float

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result((*inputs[0].axes[:-1], self.d_head_v)),)

    @property
    def rows(self) -> Axis:
        width = mul(self.n_heads.symbol, self.d_head.symbol + self.d_head_v.symbol)
        return Axis("n_heads*(d_head+d_head_v)", width)

    def weights(self) -> tuple[Weight, ...]:
        return (Weight(f"{self.path}.weight", (self.rows, self.kv_rank), DEFAULT_INIT),)

    def modules(self) -> tuple[Module, ...]:
        sizes = f"{self.kv_rank.size.value}, {self.rows.size.value}"
        return (Module(self.path, f"nn.Linear({sizes}, bias=False)", "each head's keys, then its values"),)

    def state(self) -> tuple[State, ...]:
        width = Axis("kv_rank+d_rope", self.kv_rank.symbol + self.d_rope.symbol)
        record = (".latent_attention", "LatentState")
        return (State("kv.latent", (Axis("tokens", CONTEXT), width), "kv", "kv", record),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        """The projection of a whole sequence's latents, and attention as it always counts."""
        projected = mul(2, numel(inputs[2].axes), self.rows.symbol)
        heads = mul(2, BATCH.symbol, self.n_heads.symbol, causal_pairs(None))
        d_qk, d_v = self.d_head.symbol + self.d_rope.symbol, self.d_head_v.symbol
        forward = projected + mul(BATCH.symbol, causal_pairs(None), self.pair_flops(inputs, outputs))
        return Flops(forward, forward, 2 * projected + heads * (3 * d_qk + 2 * d_v))

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """The latents, and what attention reads; keys are put together anew, values lie in the projection's result."""
        tape.keep(inputs[2])
        tokens, rows = numel(inputs[2].axes[:-1]), numel(inputs[0].axes[:-1])
        product = kept_product(self.kv_rank.symbol, self.rows.size)
        tape.extra("k_nope, v", mul(tokens, self.rows.symbol, tape.element), product=product)
        for name in ("q", "k"):
            tape.extra(name, mul(rows, self.d_head.symbol + self.d_rope.symbol, tape.element))
        tape.new(*outputs, product=True)
        tape.keep(*outputs)
        tape.extra("log-sum-exp", mul(rows, tape.width()), product=True)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".latent_attention", "latent_attention"),)

    def code(self, p: Printer) -> str:
        options = f"scale={self.scale!r}, positions={p.positions}, {p.held('kv')}"
        return f"latent_attention({', '.join(p.inputs)}, {p.weight(self.path)}.weight, {options})"

    @property
    def mixes_tokens(self) -> bool:
        return True

    def pair_flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Size:
        d_qk, d_v = self.d_head.symbol + self.d_rope.symbol, self.d_head_v.symbol
        return mul(2, self.n_heads.symbol, d_qk + d_v)

    @property
    def matmul(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"latent_attention[{self.path}] scale={self.scale!r}"


def latent_attention(
    b: Body, path: str, q_nope: Value, q_rope: Value, c: Value, k_rope: Value, *, d_head_v: Axis, scale: float
) -> Value:
    op = LatentAttention(
        path=path,
        n_heads=q_nope.axes[-2],
        d_head=q_nope.width,
        d_rope=q_rope.width,
        d_head_v=d_head_v,
        kv_rank=c.width,
        scale=scale,
    )
    return b.one(op, q_nope, q_rope, c, k_rope)
