"""Saved activations: what the analysis says is what a dispatch mode finds alive on the meta device, exactly."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from archc.ir.graph import Graph, unrolled
from archc.passes.grouping import EMBEDDING, HEAD, layer_label, sublayer_labels
from archc.passes.saved import LOSS, Recompute, saved
from archc.passes.workload import Dtype, Workload

from .cases import KINDS, MODELS, spec
from .packages import Workshop

torch = pytest.importorskip("torch")

TORCH = {"bf16": torch.bfloat16, "fp32": torch.float32}
B, T = 2, 72  # the last chunk of every scan is a short one
ROUTERS = {
    name: spec(name, "mlp none", f"block x2 < attn gqa(4,2), {layer} >")
    for name, layer in {
        "switch": "moe(expert=relu(6), capacity=1.0, balance=0.01) top1/5",
        "biases": "moe(expert=gelu(6, bias), balance=0.5, z_loss=0.1) top2/5",
        "gated_shared": "moe(expert=swiglu(6), shared=geglu(7, bias), shared_gate, z_loss=0.01) top3/5",
        "jitter": "moe(expert=swiglu(6), router=softmax(jitter=0.3, renorm, select_bias)) top2/4",
        "sigmoid": "moe(expert=relu2(6), router=sigmoid(renorm, select_bias, scale=2.5, groups=3, top_groups=2), "
        "balance=0.01, capacity=1.25) top3/6",
    }.items()
}
TEXTS = MODELS | ROUTERS
CASES = [(name, True, dtype) for name in TEXTS for dtype in ("bf16", "fp32")]
CASES += [(name, False, "fp32") for name in KINDS]


@pytest.mark.parametrize(("name", "fuse", "dtype"), CASES)
@pytest.mark.parametrize("recompute", get_args(Recompute))
def test_what_stays_alive_is_what_the_analysis_says(
    name: str, fuse: bool, dtype: Dtype, recompute: Recompute, workshop: Workshop
) -> None:
    package = workshop(TEXTS[name], fuse=fuse)
    measured = package.module("saved").on_meta(B, T, TORCH[dtype], recompute)
    analysed = saved(package.lowered, Workload(context=T, batch=B, dtype=dtype), recompute)
    assert {group.name: group.n_bytes for group in analysed.groups} == by_group(package.lowered, measured)


def by_group(graph: Graph, measured: list[int]) -> dict[str, int]:
    """The bytes of the embedding, each layer, the head and the loss, added up as reports group them."""
    labels, found = sublayer_labels(graph), Counter[str]()
    names = [EMBEDDING, *(layer_label(layer, labels) for layer in unrolled(graph.stack)), HEAD, LOSS]
    for name, n_bytes in zip(names, measured, strict=True):
        found[name] += n_bytes
    return dict(found)
