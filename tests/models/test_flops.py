"""torch's FlopCounterMode on the generated model equals the analysed kernel FLOPs, forward and backward, exactly."""

import pytest

from archc.passes.flops import flops
from archc.passes.workload import Workload

from .cases import KINDS, MODELS
from .packages import Workshop

torch = pytest.importorskip("torch")

B, T = 2, 13


CASES = [pytest.param(name, True, id=name) for name in MODELS]
CASES += [pytest.param(name, False, id=f"{name}-as_written") for name in KINDS]


@pytest.mark.parametrize(("name", "fuse"), CASES)
def test_counted_flops_equal_analysed_ones(name: str, fuse: bool, workshop: Workshop) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    package = workshop(MODELS[name], fuse=fuse)
    model = package.make(torch.float32)
    tokens = torch.randint(package.module().VOCAB, (B, T), generator=torch.Generator().manual_seed(0))
    analysed = flops(package.lowered, Workload(context=T, batch=B)).total
    with FlopCounterMode(display=False) as forward:
        logits = model(tokens)
    assert forward.get_total_flops() == analysed.forward
    with FlopCounterMode(display=False) as backward:
        logits.square().sum().backward()
    assert backward.get_total_flops() == analysed.backward


@pytest.mark.parametrize("name", MODELS)
def test_lowering_changes_no_model_flops(name: str, workshop: Workshop) -> None:
    """Fusion saves bytes, never operations: the model's FLOPs are those of the graph as written."""
    package, workload = workshop(MODELS[name]), Workload(context=T, batch=B)
    assert flops(package.lowered, workload).total == flops(package.model.graph, workload).total
