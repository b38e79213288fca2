"""Mixture of experts.

Sources: arXiv:1701.06538; Mixtral, arXiv:2401.04088; Jamba, arXiv:2403.19887; Switch, arXiv:2101.03961; MoE-Mamba,
arXiv:2401.04081; ST-MoE, arXiv:2202.08906; DeepSeekMoE, arXiv:2401.06066 (shared experts); DeepSeek-V3,
arXiv:2412.19437.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

from archc.ir.body import Body
from archc.ir.op import Op
from archc.ir.size import Const
from archc.ir.values import BATCH, TIME, Axis, Value, constant_axis
from archc.layers.kind import ChannelMixer, Kind, Problem
from archc.layers.parts import Router, SoftmaxRouter
from archc.ops.int8_experts import Int8ExpertLinear
from archc.ops.linear import ExpertLinear, linear
from archc.ops.moe import (
    Route,
    RouterLosses,
    combine,
    dispatch,
    jitter,
    route,
    router_losses,
    stacked,
    within_capacity,
)
from archc.ops.pointwise import activation, add, mul


@dataclass(frozen=True, kw_only=True)
class MoE(ChannelMixer, keyword="moe"):
    """A mixture of experts: each token goes through `top_k` of `n_experts` networks (arXiv:1701.06538)."""

    expert: ChannelMixer = field(metadata={"doc": "one expert; the spec's mlp unless given", "setting": "mlp"})
    top_k: int = field(metadata={"doc": "experts per token", "example": "top2/16"})
    n_experts: int = field(metadata={"doc": "routed experts", "example": "top2/16"})
    router: Router = field(default=SoftmaxRouter(), metadata={"doc": "how experts are chosen"})
    shared: ChannelMixer | None = field(
        default=None, metadata={"doc": "an expert for every token, added to the others"}
    )
    shared_gate: bool = field(
        default=False, metadata={"doc": "the shared expert times a sigmoid of its own projection"}
    )
    capacity: Fraction | None = field(
        default=None,
        metadata={"doc": "training: most rows of an expert, in even shares; later tokens are dropped", "above": 0},
    )
    balance: Fraction | None = field(default=None, metadata={"doc": "training: weight of the balance loss", "above": 0})
    weights: Literal["int8"] | None = field(
        default=None, metadata={"doc": "int8: of the routed experts, for inference; a scale for each row"}
    )
    z_loss: Fraction | None = field(default=None, metadata={"doc": "training: weight of the router z-loss", "above": 0})

    def forward(self, b: Body, h: Value) -> Value:
        experts_axis = b.axis("n_experts", self.n_experts)
        noisy = h if self.router.jitter is None else jitter(b, h, float(self.router.jitter))
        logits = linear(b, "router", noisy, to=experts_axis)
        weights, experts = route(b, self._route(experts_axis), logits)
        rows, plan = dispatch(b, h, experts, self.n_experts)
        if self.balance or self.z_loss or self.router.select_bias:
            weights = router_losses(b, self._losses(), weights, logits, plan)
        if self.capacity is not None:
            weights = within_capacity(b, weights, experts, plan, self.capacity)
        projection = Int8ExpertLinear if self.weights == "int8" else ExpertLinear
        with stacked(b, "experts", experts_axis, self.top_k, plan, projection):
            rows = self.expert.forward(b, rows)
        if self.shared is None:
            return combine(b, rows, weights, plan)
        y = combine(b, rows, weights, plan)
        shared = self.shared.run(b, "shared", h)
        if self.shared_gate:
            gate = linear(b, "shared_gate", h, to=constant_axis("1", 1))
            shared = mul(b, shared, activation(b, "sigmoid", gate))
        return add(b, y, shared)

    def _route(self, experts: Axis) -> Route:
        return Route(
            top_k=self.top_k,
            scores=self.router.scores,
            renormalise=self.router.renorm,
            select_bias=experts if self.router.select_bias else None,
            groups=self.router.groups,
            top_groups=self.router.top_groups or 1,
            group_top=self.router.group_top,
            scale=float(self.router.scale),
        )

    def _losses(self) -> RouterLosses:
        return RouterLosses(
            balance=float(self.balance or 0),
            z_loss=float(self.z_loss or 0),
            scores=self.router.scores,
            select_bias=self.router.select_bias,
        )

    def problems(self, d_model: int) -> list[Problem]:
        found = []
        if self.top_k > self.n_experts:
            message = f"a token cannot go to {self.top_k} of {self.n_experts} experts"
            hint = "topK/E sends a token to K of E experts"
            found.append(Problem("too-few-experts", message, ("top_k", "n_experts"), "", hint))
        else:
            found += self.router.problems(self.top_k, self.n_experts)
        if self.shared_gate and self.shared is None:
            message = "there is no shared expert to gate"
            found.append(Problem("gate-without-shared", message, ("shared_gate",), "", "add shared=swiglu(512)"))
        for name, kind in (("expert", self.expert), ("shared", self.shared)):
            for problem in kind.problems(d_model) if kind is not None else ():
                found.append(replace(problem, fields=tuple(f"{name}.{path}" for path in problem.fields)))
        return found or self._expert_problems(d_model)

    def _expert_problems(self, d_model: int) -> list[Problem]:
        """An expert is a channel mixer all of whose weights can be stacked, one for each expert."""
        if isinstance(self.expert, MoE):
            message = "an expert cannot be a mixture of experts itself"
            return [Problem("nested-experts", message, ("expert",), "", "give an expert: expert=swiglu(1024)")]
        for name in ("in_scale", "out_scale", "out_norm"):
            if getattr(self.expert, name) is not None:
                message = f"an expert takes no `{name}`: it is no branch of its own"
                hint = f"give it to moe: moe({name}=...)"
                return [Problem("expert-field", message, (f"expert.{name}", "expert"), "", hint)]
        single = [op for op in _program(self.expert, d_model, self.n_experts, self.top_k) if _is_single(op)]
        if single:
            message = (
                f"`{self.expert.keyword}` cannot be an expert as it is here: {single[0].label} is not one per expert"
            )
            hint = "an expert is made of projections and pointwise functions"
            return [Problem("expert-field", message, ("expert",), "", hint)]
        return []


def _program(expert: Kind, d_model: int, n_experts: int, top_k: int) -> list[Op]:
    """The ops of an expert, on a body of its own."""
    width = Axis("d_model", Const(d_model))
    b = Body(width)
    rows, plan = Value((BATCH, TIME, width)), Value((BATCH,), type="plan")
    with stacked(b, "experts", constant_axis("n_experts", n_experts), top_k, plan):
        y = expert.forward(b, rows)
    graph, _ = b.finish((rows, plan), (y,))
    return [node.op for node in graph.nodes]


def _is_single(op: Op) -> bool:
    """Whether an op has a weight that is not one for each expert, or looks along the tokens, which are out of order."""
    return op.mixes_tokens or any(weight.axes[0].name != "n_experts" for weight in op.weights())
