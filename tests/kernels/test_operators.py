"""The operators on CPU: exact in float64, differentiable, one function in all modes, at home in torch's machinery."""

from collections.abc import Callable
from functools import partial
from itertools import chain
from types import ModuleType
from typing import Any

import pytest

from .variants import CONVS, SCANS

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from .inputs import BATCH, conv_inputs, doubled, error, gradients, positions_of, scan_inputs  # noqa: E402

EXACT = 1e-10  # float64
CLOSE = {torch.float64: EXACT, torch.float32: 1e-5, torch.bfloat16: 2e-2}  # relative to the largest element


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def operator(package: ModuleType, name: str, suffix: str = "") -> Callable[..., Any]:
    """An operator (`_fwd`, `_bwd`, `_step`) or, without suffix, the public function."""
    module = getattr(package, name.removeprefix("add_"))
    found: Callable[..., Any] = getattr(module, f"{name}{suffix}")
    return found


def mixer(package: ModuleType, name: str, length: int, packed: bool, stateful: bool, dtype: Any) -> tuple[Any, ...]:
    """For a scan or a convolution: its operator and its reference on named inputs, and inputs."""
    forward = operator(package, name, "_fwd")
    inputs: dict[str, Tensor | None]
    if name in SCANS:
        inputs = dict(scan_inputs(name, length, 7, dtype))
        shape = (BATCH, 7, SCANS[name].d_state)
        oracle = partial(package.reference.selective_scan, dt_softplus=SCANS[name].dt_softplus)
        run = lambda **inputs: forward(*inputs.values())[:2]  # noqa: E731
    else:
        inputs = dict(conv_inputs(name, length, 7, dtype))
        shape = (BATCH, CONVS[name].width - 1, 7)
        oracle = lambda **inputs: package.reference.causal_conv1d(**inputs, silu=CONVS[name].silu)[0]  # noqa: E731
        run = lambda **inputs: forward(*inputs.values())  # noqa: E731
    inputs["positions"] = positions_of(BATCH, length) if packed else None
    wide = torch.promote_types(dtype, torch.float32)
    inputs["initial"] = torch.randn(shape, dtype=wide if name in SCANS else dtype) if stateful else None
    return run, oracle, inputs


MIXERS = [*SCANS, *CONVS]


@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
@pytest.mark.parametrize("stateful", [False, True], ids=["fresh", "state"])
@pytest.mark.parametrize("length", [1, 2, 64, 130])
@pytest.mark.parametrize("name", MIXERS)
def test_mixer_equals_reference(package: ModuleType, name: str, length: int, stateful: bool, packed: bool) -> None:
    run, oracle, inputs = mixer(package, name, length, packed, stateful, torch.float64)
    outputs, grads = gradients(run, inputs)
    expected, expected_grads = gradients(oracle, inputs)
    for actual, wanted in zip(outputs + grads, expected + expected_grads, strict=True):
        assert actual.shape == wanted.shape
        assert error(actual, wanted) <= EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MIXERS)
def test_mixer_in_low_precision(package: ModuleType, name: str, dtype: Any) -> None:
    run, oracle, inputs = mixer(package, name, 65, True, True, dtype)
    outputs, grads = gradients(run, inputs)
    expected, expected_grads = gradients(oracle, doubled(inputs))
    assert outputs[0].dtype == dtype
    for actual, wanted in zip(outputs + grads, expected + expected_grads, strict=True):
        assert error(actual, wanted) <= CLOSE.get(actual.dtype, 2e-2) + (2e-2 if dtype != torch.float32 else 0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 16), (2, 3, 257), (5, 1000)], ids=str)
def test_norms_equal_reference(package: ModuleType, shape: tuple[int, ...], dtype: Any) -> None:
    x = torch.randn(*shape[:-1], shape[-1] + 9, dtype=dtype)[..., 4 : 4 + shape[-1]]
    weight, residual = (
        torch.randn(shape[-1]).to(dtype),
        torch.randn(shape, dtype=torch.promote_types(dtype, torch.float32)),
    )
    for name, inputs in (
        ("rms_norm", {"x": x, "weight": weight}),
        ("add_rms_norm", {"x": x, "residual": residual, "weight": weight}),
    ):
        outputs, grads = gradients(partial(operator(package, name), eps=1e-5), dict(inputs))
        expected, wanted = gradients(partial(getattr(package.reference, name), eps=1e-5), doubled(dict(inputs)))
        assert outputs[0].dtype == weight.dtype
        for actual, exact in zip(outputs + grads, expected + wanted, strict=True):
            assert error(actual, exact) <= CLOSE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_swiglu_equals_reference(package: ModuleType, dtype: Any) -> None:
    gate, up = torch.randn(2, 5, 66, dtype=dtype).chunk(2, -1)
    inputs: dict[str, Tensor | None] = {"gate": gate, "up": up}
    outputs, grads = gradients(operator(package, "swiglu"), inputs)
    expected, wanted = gradients(package.reference.swiglu, doubled(inputs))
    for actual, exact in zip(outputs + grads, expected + wanted, strict=True):
        assert error(actual, exact) <= CLOSE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", [[70], [1] * 70, [3, 64, 1, 2], [1, 2, 67]], ids=["whole", "tokens", "chunks", "odd"])
@pytest.mark.parametrize("name", MIXERS)
def test_modes_are_one_function(package: ModuleType, name: str, sizes: list[int], dtype: Any) -> None:
    """A whole sequence equals its chunks and its tokens, packed documents included, and leaves the same state."""
    for packed in (False, True):
        run, _, inputs = mixer(package, name, 70, packed, False, dtype)
        inputs.pop("initial")
        positions = inputs.pop("positions")
        if name in SCANS:
            y, final = run(**inputs, positions=positions, initial=None)
            state = torch.zeros_like(final)
        else:
            y = run(**inputs, positions=positions, initial=None)
            final = torch.cat([torch.zeros(BATCH, 3, 7, dtype=dtype), inputs["x"]], 1)[:, 73 - CONVS[name].width + 1 :]
            state = torch.zeros_like(final)
        assert inputs["x"] is not None
        length = inputs["x"].shape[1]
        pieces, start = [], 0
        function = operator(package, name)
        for size in sizes:
            now = slice(start, start + size)
            chunk = {
                key: value[:, now] if value is not None and value.ndim == 3 and value.shape[1] == length else value
                for key, value in inputs.items()
            }
            with torch.no_grad():
                when = None if positions is None else positions[:, now]
                pieces.append(function(**chunk, positions=when, state=state))
            start += size
        assert error(torch.cat(pieces, 1), y) <= CLOSE[dtype]
        assert error(state, final) <= CLOSE[dtype]


@pytest.mark.parametrize("name", MIXERS)
def test_packed_documents_are_separate(package: ModuleType, name: str) -> None:
    _, _, inputs = mixer(package, name, 40, False, False, torch.float64)
    positions = torch.cat([torch.arange(n) for n in (3, 1, 30, 6)]).expand(BATCH, -1)
    function = operator(package, name)
    inputs = {key: value for key, value in inputs.items() if key not in ("positions", "initial")}
    packed = function(**inputs, positions=positions)
    for start, stop in ((0, 3), (3, 4), (4, 34), (34, 40)):
        document = {
            key: value[:, start:stop] if value.ndim == 3 and value.shape[1] == 40 else value
            for key, value in inputs.items()
        }
        assert error(packed[:, start:stop], function(**document)) <= EXACT


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("name", MIXERS)
def test_state_with_gradients(package: ModuleType, name: str, length: int) -> None:
    """With gradients on, a call with a state still trains its other inputs, and later calls may change the state."""
    run, _, inputs = mixer(package, name, length, True, True, torch.float64)
    _, expected = gradients(lambda **i: run(**i)[0] if name in SCANS else run(**i), inputs)
    function = operator(package, name)
    state = inputs.pop("initial")
    assert state is not None

    def with_state(**leaves: Any) -> Tensor:
        y: Tensor = function(**leaves, state=state)
        assert not state.requires_grad
        state.zero_()
        return y

    _, actual = gradients(with_state, inputs)
    for grad, wanted in zip(actual, expected[:-1], strict=True):
        assert error(grad, wanted) <= EXACT


@pytest.mark.parametrize("name", MIXERS)
def test_gradcheck_mixers(package: ModuleType, name: str) -> None:
    run, _, inputs = mixer(package, name, 5, True, True, torch.float64)
    leaves = [
        value.detach().requires_grad_() if value is not None and value.is_floating_point() else value
        for value in inputs.values()
    ]
    assert torch.autograd.gradcheck(
        lambda *values: run(**dict(zip(inputs, values, strict=True))), leaves, fast_mode=True
    )


def test_gradcheck_pointwise(package: ModuleType) -> None:
    x, residual, weight = (torch.randn(*shape, dtype=torch.float64) for shape in ((3, 6), (3, 6), (6,)))
    for tensor in (x, residual, weight):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(operator(package, "rms_norm"), (x, weight, 1e-5))
    assert torch.autograd.gradcheck(operator(package, "add_rms_norm"), (x, residual, weight, 1e-5))
    assert torch.autograd.gradcheck(operator(package, "swiglu"), (x, residual))


def samples(package: ModuleType, name: str) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Every operator of a family with arguments of each kind."""
    found: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    if name in (*SCANS, *CONVS):
        for stateful in (False, True):
            _, _, inputs = mixer(package, name, 3, stateful, stateful, torch.float32)
            *saved, initial = inputs.values()
            primals = [
                value.detach().requires_grad_() if value is not None and value.is_floating_point() else value
                for value in saved
            ]
            found.append((operator(package, name, "_fwd"), (*primals, initial)))
            if name in SCANS:
                y, final, states = operator(package, name, "_fwd")(*saved, initial)
                arguments = (y, final if stateful else None, *saved, states)
            else:
                arguments = (operator(package, name, "_fwd")(*saved, initial), *saved, initial)
            found.append((operator(package, name, "_bwd"), arguments))
            if initial is not None:
                token = [
                    value[:, :1] if value is not None and value.ndim != 1 and value.shape[1] == 3 else value
                    for value in saved
                ]
                found.append((operator(package, name, "_step"), (*token, initial)))
    elif name == "rms_norm":
        x, residual, weight = torch.randn(2, 3, 8), torch.randn(2, 3, 8), torch.randn(8)
        leaves = [value.clone().requires_grad_() for value in (x, residual, weight)]
        found.append((operator(package, name, "_fwd"), (leaves[0], leaves[2], 1e-5)))
        found.append((operator(package, f"add_{name}", "_fwd"), (*leaves, 1e-5)))
        found.append((operator(package, name, "_bwd"), (x, residual, x, weight, torch.ones(2, 3))))
    else:
        gate, up = torch.randn(2, 3, 8).chunk(2, -1)
        found.append((operator(package, name, "_fwd"), (gate.detach().requires_grad_(), up.detach().requires_grad_())))
        found.append((operator(package, name, "_bwd"), (gate, gate, up)))
    return found


@pytest.mark.parametrize(
    "name", ["selective_scan", "selective_scan_bare", "causal_conv1d", "causal_conv1d_plain", "rms_norm", "swiglu"]
)
def test_opcheck(package: ModuleType, name: str) -> None:
    for function, arguments in samples(package, name):
        torch.library.opcheck(function, arguments)


def test_flop_counter(package: ModuleType) -> None:
    """The counter takes each operator's formula, forward and backward, and counts nothing inside it."""
    length, d_inner = 5, 7
    inputs = {
        key: value.detach().requires_grad_()
        for key, value in scan_inputs("selective_scan", length, d_inner, torch.float32).items()
    }
    with FlopCounterMode(display=False) as counter:
        y = operator(package, "selective_scan")(**inputs)
    forward = BATCH * length * d_inner * (7 * 16 + 3)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 2 * forward
    state = torch.zeros(BATCH, d_inner, 16)
    token = {key: value[:, :1] if value.ndim == 3 else value for key, value in inputs.items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        operator(package, "selective_scan")(**token, state=state)
    assert counter.get_total_flops() == forward // length

    inputs = {
        key: value.detach().requires_grad_()
        for key, value in conv_inputs("causal_conv1d", length, 6, torch.float32).items()
    }
    with FlopCounterMode(display=False) as counter:
        y = operator(package, "causal_conv1d")(**inputs)
        y = operator(package, "rms_norm")(operator(package, "swiglu")(y, y), torch.ones(6), 1e-5)
    assert counter.get_total_flops() == 2 * BATCH * length * 6 * 4
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 4 * BATCH * length * 6 * 4


@pytest.mark.parametrize("packed", [False, True], ids=["one", "packed"])
def test_compiles_whole(package: ModuleType, packed: bool) -> None:
    scan, conv = scan_inputs("selective_scan", 9, 7, torch.float32), conv_inputs("causal_conv1d", 9, 7, torch.float32)
    positions = positions_of(BATCH, 9) if packed else None
    weight, gates = torch.randn(7), torch.randn(BATCH, 9, 7)

    def block(x: Tensor, gates: Tensor, weight: Tensor) -> Tensor:
        y, residual = operator(package, "add_rms_norm")(x, gates, weight, 1e-5)
        y = operator(package, "causal_conv1d")(y, conv["weight"], conv["bias"], positions=positions)
        y = operator(package, "selective_scan")(**{**scan, "x": y, "z": gates}, positions=positions)
        y = operator(package, "swiglu")(y, gates) + residual
        normed: Tensor = operator(package, "rms_norm")(y, weight, 1e-5)
        return normed

    inputs: dict[str, Tensor | None] = {"x": torch.randn(BATCH, 9, 7), "gates": gates, "weight": weight}
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    for actual, wanted in zip(*(chain(*gradients(run, inputs)) for run in (compiled, block)), strict=True):
        assert error(actual, wanted) <= CLOSE[torch.float32]


def test_compiles_with_state(package: ModuleType) -> None:
    scan, conv = scan_inputs("selective_scan", 9, 7, torch.float32), conv_inputs("causal_conv1d", 9, 7, torch.float32)

    def prefill(x: Tensor, conv_state: Tensor, scan_state: Tensor) -> Tensor:
        y = operator(package, "causal_conv1d")(x, conv["weight"], conv["bias"], state=conv_state)
        activations = {key: value[:, : x.shape[1]] for key, value in scan.items() if value.ndim == 3}
        scanned: Tensor = operator(package, "selective_scan")(**{**scan, **activations, "x": y}, state=scan_state)
        return scanned

    compiled = torch.compile(prefill, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for length in (9, 1):
            x, states = torch.randn(BATCH, length, 7), (torch.randn(BATCH, 3, 7), torch.randn(BATCH, 7, 16))
            mine, theirs = [s.clone() for s in states], [s.clone() for s in states]
            assert error(compiled(x, *mine), prefill(x, *theirs)) <= CLOSE[torch.float32]
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
            assert not torch.equal(mine[0], states[0])
