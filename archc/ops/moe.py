"""Mixture of experts: choose experts, group rows by expert, put the results together.

Sources: Shazeer et al. 2017, arXiv:1701.06538; Switch, arXiv:2101.03961; dropless grouping, arXiv:2211.15841.
The experts themselves are `archc.ops.linear.ExpertLinear`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from archc.ir.body import Body, StackedExperts
from archc.ir.op import Op, Printer, Result
from archc.ir.size import mul
from archc.ir.values import BATCH, TIME, Axis, Value, constant_axis


@dataclass(frozen=True, kw_only=True)
class Route(Op):
    """Softmax over all experts, then the `top_k` largest; the weights keep their value unless `renormalise`."""

    top_k: int
    renormalise: bool = False

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        axes = (*inputs[0].axes[:-1], constant_axis("top_k", self.top_k))
        return Result(axes), Result(axes, "index")

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".experts", "route"),)

    def code(self, p: Printer) -> str:
        renormalise = ", renormalise=True" if self.renormalise else ""
        return f"route({p.inputs[0]}, top_k={self.top_k}{renormalise})"

    @property
    def label(self) -> str:
        return f"route top{self.top_k}" + (" renormalise" if self.renormalise else "")


@dataclass(frozen=True, kw_only=True)
class Dispatch(Op):
    """`[B, T, d] -> [B*T*top_k, d]`: one row for each chosen expert of each token, grouped by expert; and how."""

    n_experts: int

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        h, experts = inputs
        rows = Axis("rows", mul(BATCH.symbol, TIME.symbol, experts.width.symbol))
        return Result((rows, h.width)), Result((rows,), "plan")

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".experts", "dispatch"),)

    def code(self, p: Printer) -> str:
        return f"dispatch({p.inputs[0]}, {p.inputs[1]}, n_experts={self.n_experts})"

    @property
    def label(self) -> str:
        return "dispatch"


@dataclass(frozen=True, kw_only=True)
class Combine(Op):
    """Back to `[B, T, d]`: the sum of each token's rows, weighted by the router."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        rows, weights, _ = inputs
        return (Result((*weights.axes[:-1], rows.width)),)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".experts", "combine"),)

    def code(self, p: Printer) -> str:
        return f"combine({', '.join(p.inputs)})"

    @property
    def label(self) -> str:
        return "combine"


def route(b: Body, logits: Value, top_k: int, *, renormalise: bool = False) -> tuple[Value, Value]:
    weights, experts = b.apply(Route(top_k=top_k, renormalise=renormalise), logits)
    return weights, experts


def dispatch(b: Body, h: Value, experts: Value, n_experts: int) -> tuple[Value, Value]:
    rows, plan = b.apply(Dispatch(n_experts=n_experts), h, experts)
    return rows, plan


def combine(b: Body, rows: Value, weights: Value, plan: Value) -> Value:
    return b.one(Combine(), rows, weights, plan)


@contextmanager
def stacked(b: Body, name: str, experts: Axis, top_k: int, plan: Value) -> Iterator[None]:
    """Within it, every projection is one matrix per expert, stored as `name.path [E, d_out, d_in]`."""
    b.stacked = StackedExperts(name, experts, top_k, plan)
    try:
        yield
    finally:
        b.stacked = None
