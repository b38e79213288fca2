"""Mixture of experts. Sources: arXiv:1701.06538, arXiv:2401.04088 (Mixtral), arXiv:2403.19887 (Jamba)."""

from __future__ import annotations

from dataclasses import dataclass, field

from archc.ir.body import Body
from archc.ir.values import Value
from archc.layers.kind import ChannelMixer, Problem
from archc.layers.parts import Router, SoftmaxRouter
from archc.ops.linear import linear
from archc.ops.moe import combine, dispatch, route, stacked


@dataclass(frozen=True, kw_only=True)
class MoE(ChannelMixer, keyword="moe"):
    """A mixture of experts: each token goes through `top_k` of `n_experts` networks (arXiv:1701.06538)."""

    expert: ChannelMixer = field(metadata={"doc": "one expert; the spec's mlp unless given", "setting": "mlp"})
    top_k: int = field(metadata={"doc": "experts per token"})
    n_experts: int = field(metadata={"doc": "routed experts"})
    router: Router = field(default=SoftmaxRouter(), metadata={"doc": "how experts are chosen"})

    def forward(self, b: Body, h: Value) -> Value:
        experts_axis = b.axis("n_experts", self.n_experts)
        logits = linear(b, "router", h, to=experts_axis)
        weights, experts = route(b, logits, self.top_k, renormalise=self.router.renorm)
        rows, plan = dispatch(b, h, experts, self.n_experts)
        with stacked(b, "experts", experts_axis, self.top_k, plan):
            rows = self.expert.forward(b, rows)
        return combine(b, rows, weights, plan)

    def problems(self, d_model: int) -> list[Problem]:
        if self.top_k > self.n_experts:
            message = f"a token cannot go to {self.top_k} of {self.n_experts} experts"
            return [Problem("too-few-experts", message, ("top_k",), "", f"k may be 1 to {self.n_experts}")]
        return []
