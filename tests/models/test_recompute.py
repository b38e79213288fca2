"""Gradients do not depend on what is recomputed: in fp32 on a CPU they are bitwise the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .cases import MODELS, SHRUNK, spec
from .packages import Package, Workshop

torch = pytest.importorskip("torch")

RANDOM = "block x2 < moe(expert=swiglu(6), router=softmax(jitter=0.3), balance=0.1) top2/4 >"
TEXTS = MODELS | {"jitter": spec("jitter", "mlp none", RANDOM)}
NAMES = [pytest.param(name, marks=pytest.mark.heavy if name in SHRUNK else ()) for name in TEXTS]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_no_recomputation(name: str, workshop: Workshop) -> None:
    package = workshop(TEXTS[name])
    expected = gradients(package, "none")
    for mode in ("selective", "full"):
        found = gradients(package, mode)
        different = [parameter for parameter, grad in expected.items() if not torch.equal(grad, found[parameter])]
        assert not different, mode


def gradients(package: Package, mode: str, wrap: Callable[[Any], Any] = lambda model: model) -> dict[str, Any]:
    """Of every parameter, of a batch of two packed documents and a whole one."""
    model = package.make(torch.float32).train()
    model.recompute = mode
    tokens = torch.randint(package.module().VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))
    positions = torch.stack([torch.arange(9), torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4])])
    torch.manual_seed(2)  # of the router's noise
    loss = package.module("loss").cross_entropy(wrap(model)(tokens, positions=positions), tokens)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("name", ["mamba", "mla", "moe_top2", "shared_and_fed"])
def test_recomputation_compiles_to_one_graph(name: str, mode: str, workshop: Workshop) -> None:
    package = workshop(TEXTS[name])
    expected = gradients(package, "none")
    torch.compiler.reset()
    found = gradients(package, mode, lambda model: torch.compile(model, fullgraph=True, backend="aot_eager"))
    for parameter, grad in expected.items():
        torch.testing.assert_close(found[parameter], grad, rtol=1e-4, atol=1e-5)  # float32, sums in another order


def test_nothing_is_recomputed_with_a_cache_or_without_gradients(workshop: Workshop) -> None:
    package = workshop(MODELS["jamba_tiny"] if "jamba_tiny" in MODELS else MODELS["gqa"])
    model = package.make(torch.float32)
    model.recompute = "full"
    tokens = torch.arange(6)[None]
    whole = model(tokens)
    cache = model.init_cache(1, 6)
    with torch.no_grad():
        pieces = [model(piece, cache=cache) for piece in tokens.split([4, 1, 1], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-4, atol=1e-4)  # float32, other orders of sums
