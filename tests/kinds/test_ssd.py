"""Mamba-2's recurrence and gated norm as operations: against the papers' step by step form, in every mode."""

from __future__ import annotations

import math
from typing import Any

import pytest

from archc.ir.size import Const
from archc.ops.ssd import chunk_squares, ssd_flops

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from archc.codegen.runtime import gated_norm, initialise, reference, reference_ssd, ssd_chunks  # noqa: E402
from archc.codegen.runtime.gated_norm import gated_rms_norm  # noqa: E402

from .ssds import ssd_of  # noqa: E402

Tensor = torch.Tensor
EXACT = 1e-10  # float64, relative to the largest number: rounding of a few hundred sums
NAMES = ("x", "dt", "A_log", "B", "C", "D", "dt_bias", "initial")
# batch, tokens, heads, width of a head, groups, state, chunk: whole and broken chunks, one, and chunks of one token
SIZES = [
    (2, 13, 6, 4, 2, 5, 4),
    (1, 7, 3, 5, 1, 4, 16),
    (2, 16, 4, 3, 4, 2, 8),
    (1, 1, 2, 3, 1, 4, 8),
    (2, 5, 4, 1, 2, 3, 1),
]
POSITIONS = {
    13: [0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6, 0, 1],
    7: [5, 6, 7, 0, 1, 2, 0],
    16: [*range(8), *range(8)],
    1: [0],
    5: [3, 4, 0, 1, 2],
}


def same(a: Tensor, b: Tensor, tolerance: float = EXACT, what: str = "") -> None:
    a, b = a.detach(), b.detach()
    error = float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
    assert error <= tolerance, f"{what}: max|a-b| / max|b| = {error:.2e}"


def draw(sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """The seven inputs and an initial state, all of which want gradients."""
    B, T, H, P, G, N, _ = sizes
    generator = torch.Generator().manual_seed(sum(sizes))
    shapes = [(B, T, H, P), (B, T, H), (H,), (B, T, G, N), (B, T, G, N), (H,), (H,), (B, H, P, N)]
    return [torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes]


def positions_of(sizes: tuple[int, ...]) -> Tensor:
    """The first sequence in documents, the others in one."""
    B, T = sizes[:2]
    rows = torch.arange(T).repeat(B, 1)
    rows[0] = torch.tensor(POSITIONS[T])
    return rows


def run(
    inputs: list[Tensor], chunk: int, positions: Tensor | None = None, limits: tuple[float, float] = (0.0, math.inf)
) -> tuple[Tensor, Tensor]:
    *args, initial = inputs
    y, final, _ = ssd_of(chunk, limits).ssd_fwd(*args, positions, initial)
    return y, final


@pytest.mark.parametrize("limits", [(0.0, math.inf), (0.4, 1.1)], ids=["free", "limited"])
@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_the_recurrence_and_its_gradients(sizes, packed: bool, limits) -> None:
    """Outputs, final states and the gradients of all inputs and of the initial state, through both results."""
    inputs = draw(sizes)
    positions = positions_of(sizes) if packed else None
    *args, initial = inputs
    want = reference_ssd.ssd(*args, dt_limit=limits, positions=positions, initial=initial)
    got = run(inputs, sizes[-1], positions, limits)
    weights = [torch.randn_like(result) for result in want]
    for name, a, b in zip(("y", "final"), got, want, strict=True):
        same(a, b, what=name)
    grads = [torch.autograd.grad(results, inputs, weights) for results in (got, want)]
    for name, a, b in zip(NAMES, *grads, strict=True):
        if float(b.abs().max()) == 0:  # a first token at position 0 reads no initial state
            assert float(a.abs().max()) == 0
        else:
            same(a, b, what=name)


@pytest.mark.parametrize("chunk", [1, 3, 8, 13, 256])
def test_chunks_change_nothing(chunk: int) -> None:
    sizes = SIZES[0]
    inputs = draw(sizes)
    whole, final = run(inputs, 64, positions_of(sizes))
    y, other = run(inputs, chunk, positions_of(sizes))
    same(y, whole)
    same(other, final)


@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
@pytest.mark.parametrize("pieces", [[4, 1, 8], [1] * 13, [12, 1], [13]], ids=str)
def test_whole_equals_pieces(pieces: list[int], packed: bool) -> None:
    sizes = SIZES[0]
    *args, _ = (tensor.detach() for tensor in draw(sizes))
    x, dt, A_log, B, C, D, dt_bias = args
    positions = positions_of(sizes) if packed else None
    state = torch.zeros(2, 6, 4, 5, dtype=torch.float64)
    address = state.data_ptr()
    ssd = ssd_of(5).ssd
    with torch.no_grad():
        whole = ssd(*args, positions=positions)
        parts, start = [], 0
        for length in pieces:
            now = slice(start, start + length)
            here = None if positions is None else positions[:, now]
            x_now, dt_now, B_now, C_now = (v[:, now] for v in (x, dt, B, C))
            parts.append(ssd(x_now, dt_now, A_log, B_now, C_now, D, dt_bias, positions=here, state=state))
            start += length
    same(torch.cat(parts, 1), whole)
    assert state.data_ptr() == address
    same(state, ssd_of(5).ssd_fwd(*args, positions, None)[1])


def test_packed_equals_separate() -> None:
    *args, _ = (tensor.detach() for tensor in draw(SIZES[0]))
    lengths = [3, 1, 7, 2]
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(2, 13)
    ssd = ssd_of(4).ssd
    packed = ssd(*args, positions=positions)
    x, dt, A_log, B, C, D, dt_bias = args
    pieces = zip(*(v.split(lengths, 1) for v in (x, dt, B, C)), strict=True)
    separate = [ssd(x, dt, A_log, B, C, D, dt_bias) for x, dt, B, C in pieces]
    same(packed, torch.cat(separate, 1))


def test_heads_of_width_one_are_a_selective_scan() -> None:
    """With d_head 1 and one group, a Mamba whose A is the same for every state of a channel (arXiv:2312.00752)."""
    B, T, H, N = 2, 11, 5, 4
    x, dt, A_log, b, c, D, dt_bias, initial = draw((B, T, H, 1, 1, N, 4))
    y, final = run([x, dt, A_log, b, c, D, dt_bias, initial], 4)
    scan, last = reference.selective_scan(
        x[..., 0], dt, A_log[:, None].expand(H, N), b[:, :, 0], c[:, :, 0], D, dt_bias=dt_bias, initial=initial[:, :, 0]
    )
    same(y[..., 0], scan, 1e-9)
    same(final[:, :, 0], last, 1e-9)


def test_without_decay_it_is_linear_attention() -> None:
    """a = 0 and steps of one: softmax-free attention, as a causal product of three matrices."""
    B, T, H, _, G, _, chunk = SIZES[0]
    u, _, _, b, c, *_ = (tensor.detach() for tensor in draw(SIZES[0]))
    y, _, _ = ssd_chunks.forward(u, torch.zeros(B, T, H, dtype=u.dtype), b, c, None, None, chunk)
    scores = torch.einsum("btgn,bsgn->bgts", c, b).tril().repeat_interleave(H // G, 1)
    same(y, torch.einsum("bhts,bshp->bthp", scores, u))


def test_long_decays_neither_overflow_nor_lose_what_is_near() -> None:
    """Running sums of 1e5 in a chunk: a difference of neighbours in float32 would be wrong in its second digit."""
    sizes = (1, 256, 2, 4, 1, 8, 256)
    inputs = [tensor.detach() for tensor in draw(sizes, torch.float32)]
    inputs[1] = inputs[1].abs() * 400
    inputs[1][:, ::2] = -3.0  # between the large steps, small ones
    y, final = run(inputs, 256)
    wide = [tensor.double() for tensor in inputs]
    want, last = run(wide, 16)
    assert y.isfinite().all()
    same(y, want, 1e-6)
    same(final, last, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrower_types(dtype: torch.dtype) -> None:
    """Computed in float32, so that what remains is the rounding of the result to its own type."""
    inputs = [tensor.detach().to(dtype) for tensor in draw(SIZES[0])]
    y, final = run(inputs, 4)
    want, last = run([tensor.double() for tensor in inputs], 4)
    assert (y.dtype, final.dtype) == (dtype, torch.float32)
    same(y.double(), want, 4 * torch.finfo(dtype).eps)
    same(final.double(), last, 1e-6)


def test_a_state_of_another_type_is_written_in_place() -> None:
    *args, _ = (tensor.detach()[:, :1] if tensor.dim() > 2 else tensor.detach() for tensor in draw(SIZES[0]))
    state = torch.randn(2, 6, 4, 5, dtype=torch.bfloat16)
    before = state.double()
    with torch.no_grad():
        y = ssd_of(4).ssd(*args, state=state)
    want, last = reference_ssd.ssd(*args, initial=before)
    same(y, want)
    assert torch.equal(state, last.to(torch.bfloat16))


def test_views_of_a_projection() -> None:
    """x, B and C are slices of one convolution's result; what is behind and before them changes nothing."""
    B, T, H, P, G, N, chunk = SIZES[0]
    x, dt, A_log, b, c, D, dt_bias, _ = (tensor.detach() for tensor in draw(SIZES[0]))
    joined = torch.cat([dt.new_full((B, T, 3), math.nan), x.flatten(2), b.flatten(2), c.flatten(2), dt], -1)
    _, xs, bs, cs, dts = joined.split([3, H * P, G * N, G * N, H], -1)
    views = (xs.unflatten(-1, (H, P)), dts, A_log, bs.unflatten(-1, (G, N)), cs.unflatten(-1, (G, N)), D, dt_bias)
    ssd = ssd_of(chunk).ssd
    same(ssd(*views), ssd(x, dt, A_log, b, c, D, dt_bias))


# --- laws of operations ----------------------------------------------------------------------------


def test_gradcheck() -> None:
    sizes = (1, 5, 4, 2, 2, 3, 2)
    positions = torch.tensor([[0, 1, 0, 1, 2]])
    # float64 at a step of 1e-6; the limits lie away from every step size, so that no difference crosses one
    assert torch.autograd.gradcheck(lambda *inputs: run(list(inputs), 2, positions, (0.2, 5.0)), draw(sizes), atol=1e-7)


@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
def test_opcheck(packed: bool) -> None:
    sizes = (1, 5, 4, 2, 2, 3, 2)
    *args, initial = draw(sizes, torch.float32)
    positions = positions_of(sizes) if packed else None
    limited, free = ssd_of(2, (0.0, 2.0)), ssd_of(2)
    torch.library.opcheck(limited.ssd_fwd, (*args, positions, initial))
    torch.library.opcheck(free.ssd_fwd, (*args, positions, None))
    plain = [tensor.detach() for tensor in args]
    y, final, states = free.ssd_fwd(*plain, positions, None)
    for grad_final in (None, final):
        torch.library.opcheck(free.ssd_bwd, (y, grad_final, *plain, positions, states))
    one = [v[:, :1] if v.dim() > 2 else v for v in plain]
    here = None if positions is None else positions[:, :1]
    torch.library.opcheck(free.ssd_step, (*one, here, final))


def test_compiles_without_breaks() -> None:
    sizes = SIZES[0]
    inputs = draw(sizes, torch.float32)
    positions = positions_of(sizes)
    ssd = ssd_of(4, (0.0, 3.0)).ssd

    def loss(*args: Tensor) -> Tensor:
        y: Tensor = ssd(*args, positions=positions)
        return y.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    args = inputs[:7]
    got, want = (torch.autograd.grad(function(*args), args) for function in (compiled, loss))
    assert all(map(torch.equal, got, want))


# --- FLOPs -----------------------------------------------------------------------------------------


def analysed(sizes: tuple[int, ...]) -> tuple[int, int, int]:
    B, T, H, P, G, N, chunk = sizes
    flops = ssd_flops(Const(H), Const(P), Const(G), Const(N), chunk)
    workload = {"B": B, "T": T}
    return flops.model.at(workload), flops.forward.at(workload), flops.backward.at(workload)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_kernel_flops_are_the_analysed_ones(sizes) -> None:
    """The operation's own formula, and the matrix products that torch sees inside it."""
    _, forward, backward = analysed(sizes)
    inputs = draw(sizes)
    with FlopCounterMode(display=False) as counted:
        y, final = run(inputs, sizes[-1])
    assert counted.get_total_flops() == forward
    with FlopCounterMode(display=False) as counted:
        torch.autograd.grad([y, final], inputs, [y.detach(), final.detach()])
    assert counted.get_total_flops() == backward

    u, a, b, c = (inputs[i].detach() for i in (0, 1, 3, 4))
    with FlopCounterMode(display=False) as counted:
        y, final, states = ssd_chunks.forward(u, -a.abs(), b, c, None, None, sizes[-1])
    assert counted.get_total_flops() == forward
    with FlopCounterMode(display=False) as counted:
        ssd_chunks.backward(y, final, u, -a.abs(), b, c, None, states, sizes[-1])
    assert counted.get_total_flops() == backward


FREE = {"select", "unsqueeze", "view", "_unsafe_view", "expand", "clone", "stack", "index_select", "repeat_interleave"}


class Elementwise(TorchDispatchMode):
    """Counts an operation for each number that a pointwise function makes, and for each that a sum reads."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mul", "add", "exp"):
            self.total += result.numel()
        elif name == "sum":
            self.total += args[0].numel()
        else:
            assert name in FREE, name
        return result


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_model_flops_are_those_of_the_recurrence(sizes) -> None:
    """Counted on the paper's recurrence, elementwise; the decoding step counts the same for its token."""
    B, _, H, P, _, N, _ = sizes
    x, dt, A_log, b, c, D, _, initial = (tensor.detach() for tensor in draw(sizes))
    with Elementwise() as counted:
        reference_ssd.recurrence(x, dt, A_log, b, c, D, None, initial)
    model, _, _ = analysed(sizes)
    assert counted.total == model
    assert ssd_chunks.step_flops(B, H, P, N) == analysed((B, 1, *sizes[2:]))[0]
    one = [v[:, :1] if v.dim() > 2 else v for v in (x, dt, A_log, b, c, D, D)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ssd_of(4).ssd(*one, state=initial.clone())
    assert counter.get_total_flops() == analysed((B, 1, *sizes[2:]))[0]


@pytest.mark.parametrize(("T", "chunk"), [(0, 4), (3, 4), (4, 4), (9, 4), (8, 4), (7, 1)])
def test_squares_of_chunks(T: int, chunk: int) -> None:
    lengths = [min(chunk, T - start) for start in range(0, T, chunk)]
    assert chunk_squares(chunk).at({"T": T}) == ssd_chunks.squares(T, chunk) == sum(n * n for n in lengths)


# --- the gated norm --------------------------------------------------------------------------------


def norm_inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(s, dtype=dtype, generator=generator).requires_grad_() for s in [(2, 3, 12), (2, 3, 12), (12,)]]


@pytest.mark.parametrize("before", [False, True], ids=["after gate", "before gate"])
@pytest.mark.parametrize("groups", [1, 3, 12])
def test_gated_norm_equals_the_papers(groups: int, before: bool) -> None:
    inputs = norm_inputs()
    options = {"groups": groups, "norm_before_gate": before}
    want = reference_ssd.gated_rms_norm(*inputs, 1e-3, **options)
    got = gated_rms_norm(*inputs, 1e-3, **options)
    same(got, want)
    grad = torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad), strict=True):
        same(a, b)
    assert torch.autograd.gradcheck(lambda *args: gated_rms_norm(*args, 1e-3, **options), inputs, atol=1e-7)


@pytest.mark.parametrize("before", [False, True], ids=["after gate", "before gate"])
def test_gated_norm_is_a_lawful_operation(before: bool) -> None:
    inputs = norm_inputs(torch.float32)
    torch.library.opcheck(gated_norm.gated_rms_norm_fwd, (*inputs, 1e-5, 3, before))
    plain = [tensor.detach() for tensor in inputs]
    torch.library.opcheck(gated_norm.gated_rms_norm_bwd, (plain[0], *plain, 1e-5, 3, before))

    def normed(*args: Tensor) -> Tensor:
        return gated_rms_norm(*args, 1e-5, groups=3, norm_before_gate=before)

    compiled = torch.compile(normed, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*inputs), normed(*inputs))


def test_gated_norm_has_the_weights_type() -> None:
    y, z, weight = (tensor.detach() for tensor in norm_inputs(torch.float32))
    assert gated_rms_norm(y, z.bfloat16(), weight.bfloat16(), 1e-5).dtype == torch.bfloat16


# --- initialisation --------------------------------------------------------------------------------


def test_A_starts_uniform() -> None:
    """Mamba-2 draws A in [1, 16] (arXiv:2405.21060); the mean of 4096 draws lies within 5 standard errors."""
    A_log = torch.empty(4096)
    initialise.A_log_uniform_(A_log, 1, 16, torch.Generator().manual_seed(0))
    A = A_log.exp()
    assert A.min() >= 1 - 1e-6
    assert A.max() <= 16 + 1e-4
    assert abs(float(A.mean()) - 8.5) < 5 * 15 / math.sqrt(12 * 4096)
