"""Fused projections: the numbers of separate ones, one storage, and nothing that anyone else could notice."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from archc.codegen.runtime import projections
from archc.codegen.runtime.precision import cast_
from archc.codegen.runtime.projections import Packed, fused_linear, fused_linear_bwd, fused_linear_fwd

EXACT = {"rtol": 0.0, "atol": 1e-10}  # float64: rounding of a few dozen sums of numbers near 1


class Layer(Packed):
    packs = (("q_proj", "k_proj", "v_proj"), ("gate", "up"))

    def __init__(self, d: int = 8, bias: bool = False) -> None:
        super().__init__()
        self.q_proj = nn.Linear(d, 6, bias=bias)
        self.k_proj = nn.Linear(d, 4, bias=bias)
        self.v_proj = nn.Linear(d, 5)
        self.gate = nn.Linear(d, 7, bias=False)
        self.up = nn.Linear(d, 7, bias=False)
        self.pack()

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = fused_linear(h, self.q_proj, self.k_proj, self.v_proj)
        gate, up = fused_linear(h, self.gate, self.up)
        return torch.cat((q, k, v, gate * up), -1)


class Model(nn.Module):
    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(bias=bias) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        return torch.cat([layer(h) for layer in self.layers], -1)


def separately(layer: Layer, h: Tensor) -> Tensor:
    return torch.cat((layer.q_proj(h), layer.k_proj(h), layer.v_proj(h), layer.gate(h) * layer.up(h)), -1)


def is_packed(model: nn.Module) -> bool:
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    groups = [[getattr(layer, name).weight for name in names] for layer in layers for names in layer.packs]
    return bool(groups) and all(projections._are_adjacent(group) for group in groups)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_separate_projections(packed: bool, bias: bool) -> None:
    layer = Layer(bias=bias).double()
    if not packed:
        layer.k_proj.weight.data = layer.k_proj.weight.data.clone()
    assert is_packed(layer) == packed
    h = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, 3, 22, dtype=torch.float64)
    results = []
    for y in (layer(h), separately(layer, h)):
        results.append([y, *torch.autograd.grad(y, (h, *layer.parameters()), grad)])
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, **EXACT)


def test_results_are_views_of_one() -> None:
    layer = Layer()
    q, k, v = fused_linear(torch.randn(2, 3, 8), layer.q_proj, layer.k_proj, layer.v_proj)
    assert q.stride() == k.stride() == (3 * 15, 15, 1)
    assert q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()
    assert v.is_contiguous()  # its bias was added


MOVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "double": lambda m: m.double(),
    "half there and back": lambda m: m.bfloat16().float(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "to_empty": lambda m: m.to("meta").to_empty(device="cpu"),
    "share_memory": lambda m: m.share_memory(),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_stays_packed(move: Callable[[nn.Module], nn.Module]) -> None:
    assert is_packed(move(Model()))


def test_stays_packed_when_cast_and_keeps_parameters() -> None:
    model = Model()
    before = [id(p) for p in model.parameters()]
    values = [p.detach().bfloat16() for p in model.parameters()]
    cast_(model, torch.bfloat16, set())
    assert is_packed(model)
    assert [id(p) for p in model.parameters()] == before
    assert all(torch.equal(p, value) for p, value in zip(model.parameters(), values, strict=True))


def test_weights_of_two_dtypes_are_left_alone() -> None:
    model = Layer()
    cast_(model, torch.bfloat16, {"k_proj.weight"})
    assert not is_packed(model)
    assert model.k_proj.weight.dtype == torch.float32


def test_shared_memory_stays_shared() -> None:
    assert all(p.is_shared() for p in Model().share_memory().parameters())


@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_round_trip(assign: bool) -> None:
    source, target = Model(), Model()
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    assert list(state) == [name for name, _ in source.named_parameters()]
    target.load_state_dict(state, assign=assign)
    assert is_packed(target)
    h = torch.randn(1, 2, 8)
    assert torch.equal(source(h), target(h))


def test_built_on_meta_and_loaded() -> None:
    source = Model()
    with torch.device("meta"):
        target = Model()
    assert all(p.is_meta for p in target.parameters())
    assert target(torch.empty(1, 2, 8, device="meta")).shape == (1, 2, 44)
    target.load_state_dict({name: tensor.clone() for name, tensor in source.state_dict().items()}, assign=True)
    assert is_packed(target)
    h = torch.randn(1, 2, 8)
    assert torch.equal(source(h), target(h))


def test_saved_as_separate_tensors(tmp_path: Path) -> None:
    model = Model()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = load_file(tmp_path / "model.safetensors")
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    for state in (loaded, torch.load(buffer)):
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("foreach", [True, False])
def test_optimizers_update_in_place(foreach: bool) -> None:
    torch.manual_seed(0)
    model = Layer().double()
    other = copy.deepcopy(model)
    steps = [torch.optim.AdamW(m.parameters(), lr=0.1, foreach=foreach) for m in (model, other)]
    for _ in range(3):
        h = torch.randn(4, 3, 8, dtype=torch.float64)
        model(h).square().sum().backward()
        separately(other, h).square().sum().backward()
        for m, step in zip((model, other), steps, strict=True):
            torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
            step.step()
            step.zero_grad()
    assert is_packed(model)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_gradients_add_up() -> None:
    layer = Layer().double()
    h = torch.randn(4, 3, 8, dtype=torch.float64)
    layer(h).sum().backward()
    once = [p.grad.clone() for p in layer.parameters()]
    layer(h).sum().backward()
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(layer.parameters(), once, strict=True))


def test_gradcheck() -> None:
    layer = Layer().double()
    h = torch.randn(1, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, *_: layer(h), (h, *layer.parameters()))


def test_ops_obey_torch() -> None:
    h = torch.randn(2, 3, 8, requires_grad=True)
    weights = [torch.randn(n, 8, requires_grad=True) for n in (5, 6)]
    torch.library.opcheck(fused_linear_fwd, (h, weights))
    detached = [w.detach() for w in weights]
    torch.library.opcheck(fused_linear_bwd, (torch.randn(2, 3, 11), h.detach(), detached))


def test_training_step_compiles_whole() -> None:
    torch.manual_seed(0)
    model = Model().double()
    other = copy.deepcopy(model)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for m, run in ((model, model), (other, compiled)):
        step = torch.optim.SGD(m.parameters(), lr=0.1)
        for seed in range(2):
            h = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            run(h).square().sum().backward()
            step.step()
            step.zero_grad()
    assert is_packed(other)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(theirs, mine, **EXACT)


def test_counts_like_separate_projections() -> None:
    layer = Layer()
    h = torch.randn(2, 3, 8, requires_grad=True)
    counts = []
    for run in (layer, lambda h: separately(layer, h)):
        with FlopCounterMode(display=False) as counter:
            y = run(h)
        forward = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            y.sum().backward()
        counts.append((forward, counter.get_total_flops()))
    assert counts[0] == counts[1] == (2 * 6 * 8 * 29, 4 * 6 * 8 * 29)
