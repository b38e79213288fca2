"""The order of the passes, and why each stands where it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archc.ir.graph import Graph
from archc.ir.verify import verify
from archc.passes.fuse_add_norm import fuse_add_norm
from archc.passes.fuse_conv_silu import fuse_conv_silu
from archc.passes.fuse_projections import fuse_projections
from archc.passes.fuse_scan import fuse_scan
from archc.passes.fuse_swiglu import fuse_swiglu
from archc.passes.set_apart import set_apart


@dataclass(frozen=True)
class Pass:
    """One lowering and the reason for its place."""

    run: Callable[[Graph], Graph]
    reason: str

    @property
    def name(self) -> str:
        return self.run.__name__


PIPELINE = (
    Pass(fuse_conv_silu, "first, while the SiLU behind the convolution still stands alone"),
    Pass(fuse_scan, "before fuse_swiglu: a gate behind a scan belongs to the scan"),
    Pass(fuse_swiglu, "takes the gates that are left"),
    Pass(fuse_projections, "after fuse_scan, which changes what a projection stores and adds"),
    Pass(fuse_add_norm, "behind all other fusions: it changes what layers hand to each other"),
    Pass(set_apart, "last: what backward reads is known once every kernel is"),
)


def lower(graph: Graph, watch: Callable[[str, Graph], None] = lambda name, graph: None) -> Graph:
    """All lowerings in order; the graph is verified after each. `watch` sees the graph after every pass."""
    verify(graph, "elaborate")
    watch("elaborate", graph)
    for step in PIPELINE:
        graph = verify(step.run(graph), step.name)
        watch(step.name, graph)
    return graph
