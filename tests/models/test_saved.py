"""Saved activations: what the analysis says is what a dispatch mode finds alive on the meta device, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from archc.compiler import load
from archc.diagnostics import Source
from archc.passes.pipeline import lower
from archc.passes.plan import Recompute
from archc.passes.saved import saved
from archc.passes.workload import Dtype, Workload
from archc.verifying import TORCH, by_group, comparisons

from .cases import KINDS, MODELS, SPECS, SWIGLU, spec
from .packages import Workshop

torch = pytest.importorskip("torch")

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
WIDE = ["residual_fp32", "logits", "relu2", "mamba", *ROUTERS]  # whose casts are no copies in fp32
CASES = [(name, True, "bf16") for name in TEXTS] + [(name, True, "fp32") for name in WIDE]
LARGE = [(name, True, "fp32") for name in MODELS if name not in WIDE] + [(name, False, "fp32") for name in KINDS]


@pytest.mark.parametrize(
    ("name", "fuse", "dtype"), [*CASES, *(pytest.param(*case, marks=pytest.mark.heavy) for case in LARGE)]
)
def test_what_stays_alive_is_what_the_analysis_says(name: str, fuse: bool, dtype: Dtype, workshop: Workshop) -> None:
    package, workload = workshop(TEXTS[name], fuse=fuse), Workload(context=T, batch=B, dtype=dtype)
    measured = package.module("measure").sizes(B, T, getattr(torch, TORCH[dtype]))["saved_bytes"]
    for recompute in get_args(Recompute):
        analysed = saved(package.lowered, workload, recompute).groups
        found = by_group(package.lowered, measured[recompute])
        assert {group.name: group.n_bytes for group in analysed} == found, recompute


@pytest.mark.parametrize("name", ["rope", "window", "mamba", "mamba2", "moe_top2", "shared_and_fed"])
def test_packed_documents_keep_no_more(name: str, workshop: Workshop) -> None:
    package = workshop(TEXTS[name])
    model = package.module().Model().to("meta")
    tokens = torch.zeros(B, T, dtype=torch.int64, device="meta")
    measure = package.module("saved").saved_activations
    assert measure(model, tokens, tokens, positions=tokens) == measure(model, tokens, tokens)


@pytest.mark.heavy
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_in_full_size(path: Path, workshop: Workshop) -> None:
    """On the meta device a model may have any size."""
    package = workshop(path.read_text(encoding="utf-8"))
    measured = package.module("measure").sizes(1, 4096, torch.bfloat16)
    assert [c for c in comparisons(package.model, Workload(context=4096), measured) if not c.equal] == []


@pytest.mark.parametrize("recompute", get_args(Recompute))
def test_repeats_are_not_unrolled(recompute: Recompute) -> None:
    """What one round more keeps is the same for every round behind the first two, however many there are."""
    texts = [
        spec("long", SWIGLU, f"block x{n} < mamba(d_state=4), attn gqa(4,2) rope > moe every 3 top1/2")
        for n in (12, 24, 12 * 10**8)
    ]
    workload = Workload(context=T, batch=B)
    small, more, many = (saved(lower(load(Source("long", text)).graph), workload, recompute).n_bytes for text in texts)
    assert many - small == (more - small) * (10**8 - 1)
