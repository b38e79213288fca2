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
    top_k: int = field(metadata={"doc": "experts per token", "example": "top2/16"})
    n_experts: int = field(metadata={"doc": "routed experts", "example": "top2/16"})
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
        found = []
        if self.top_k > self.n_experts:
            message = f"a token cannot go to {self.top_k} of {self.n_experts} experts"
            hint = "topK/E sends a token to K of E experts"
            found.append(Problem("too-few-experts", message, ("top_k", "n_experts"), "", hint))
        if isinstance(self.expert, MoE):
            message = "an expert cannot be a mixture of experts itself"
            found.append(Problem("nested-experts", message, ("expert",), "", "give an expert: expert=swiglu(1024)"))
        return found
