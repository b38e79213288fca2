"""S4D: the convolution against the recurrence of its paper, in every mode, and what a spec may not say of it."""

from __future__ import annotations

import math

import pytest

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.ir.size import Const
from archc.ops.s4d import s4d_flops

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from archc.codegen.runtime import fft_conv as fft_conv_module  # noqa: E402
from archc.codegen.runtime import reference_s4d, s4d_initialise  # noqa: E402
from archc.codegen.runtime import s4d as s4d_module  # noqa: E402
from archc.codegen.runtime.fft_conv import fft_conv  # noqa: E402
from archc.codegen.runtime.s4d import s4d  # noqa: E402
from archc.codegen.runtime.vandermonde import moments, product_flops, vandermonde  # noqa: E402

Tensor = torch.Tensor
EXACT = 1e-9  # float64, relative to the largest number: transforms and sums of a few hundred numbers
RULES = ["zoh", "bilinear"]
NAMES = ("x", "A_log", "A_imag", "C", "D", "log_dt")
LENGTHS = [1, 2, 5, 13, 16, 17, 101]
POSITIONS = {
    13: [0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6, 0, 1],
    17: [5, 6, 7, 0, 1, 2, 0, *range(10)],
    1: [0],
    5: [3, 4, 5, 6, 7],
}


def same(a: Tensor, b: Tensor, tolerance: float = EXACT, what: str = "") -> None:
    a, b = a.detach(), b.detach()
    error = float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))
    assert error <= tolerance, f"{what}: max|a-b| / max|b| = {error:.2e}"


def draw(T: int, D: int = 3, pairs: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """x and the five weights, near where they begin, all of which want gradients."""
    generator = torch.Generator().manual_seed(T)
    shapes = [(2, T, D), (D, pairs), (D, pairs), (D, pairs, 2), (D,), (D,)]
    x, A_log, A_imag, C, D_, log_dt = (torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes)
    weights = [x, A_log * 0.3 - 0.7, A_imag + math.pi * torch.arange(pairs), C, D_, log_dt * 0.8 - 2]
    return [tensor.to(dtype).requires_grad_() for tensor in weights]


def state_of(inputs: list[Tensor]) -> Tensor:
    return torch.randn(2, *inputs[3].shape, dtype=inputs[0].dtype, generator=torch.Generator().manual_seed(7))


def positions_of(T: int) -> Tensor:
    """The first sequence in documents, or behind what came before; the other in one."""
    rows = torch.arange(T).repeat(2, 1)
    rows[0] = torch.tensor(POSITIONS[T])
    return rows


# --- against the recurrence ------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("T", LENGTHS)
def test_the_convolution_equals_the_recurrence(T: int, rule: str) -> None:
    """Outputs and the gradients of x and all weights."""
    inputs = draw(T)
    got = s4d(*inputs, discretisation=rule)
    want, _ = reference_s4d.s4d(*inputs, discretisation=rule)
    same(got, want, what="y")
    direction = torch.randn_like(want)
    for name, a, b in zip(NAMES, *(torch.autograd.grad(y, inputs, direction) for y in (got, want)), strict=True):
        same(a, b, what=name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("T", POSITIONS)
def test_documents_and_a_state_from_before(T: int, rule: str) -> None:
    """Outputs, their gradients, and the state that is left, of packed documents whose first goes on from a state."""
    inputs, positions = draw(T), positions_of(T)
    state = state_of(inputs)
    want, final = reference_s4d.s4d(*inputs, discretisation=rule, positions=positions, initial=state.clone())
    got = s4d(*inputs, discretisation=rule, positions=positions, state=state)
    same(got, want, what="y")
    same(state, final, what="state")
    direction = torch.randn_like(want)
    for name, a, b in zip(NAMES, *(torch.autograd.grad(y, inputs, direction) for y in (got, want)), strict=True):
        same(a, b, what=name)


@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
@pytest.mark.parametrize("pieces", [[4, 1, 8], [1] * 13, [12, 1], [13]], ids=str)
def test_whole_equals_pieces(pieces: list[int], packed: bool) -> None:
    x, *weights = (tensor.detach() for tensor in draw(13))
    positions = positions_of(13) if packed else None
    state = torch.zeros(2, 3, 4, 2, dtype=torch.float64)
    parts = []
    with torch.no_grad():
        for now in torch.arange(13).split(pieces):
            here = None if positions is None else positions[:, now]
            parts.append(s4d(x[:, now], *weights, positions=here, state=state))
        whole = s4d(x, *weights, positions=positions)
        _, final = reference_s4d.s4d(x, *weights, positions=positions)
    same(torch.cat(parts, 1), whole)
    same(state, final)


def test_packed_equals_separate() -> None:
    lengths = [3, 1, 7, 2]
    x, *weights = (tensor.detach() for tensor in draw(13))
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(2, 13)
    separate = [s4d(piece, *weights) for piece in x.split(lengths, 1)]
    same(s4d(x, *weights, positions=positions), torch.cat(separate, 1))


def test_a_long_sequence_in_float32() -> None:
    """4001 tokens, as many radians: what a table of rounded powers would lose, the two tables keep."""
    inputs = [tensor.detach() for tensor in draw(4001, D=4, pairs=16, dtype=torch.float32)]
    inputs[5] = inputs[5].clamp(min=math.log(1e-3), max=math.log(1e-1))
    want = s4d(*(tensor.double() for tensor in inputs))
    same(s4d(*inputs).double(), want, 1e-5)  # rounding of the kernel and of transforms over 8192 numbers
    state = torch.zeros(2, 4, 16, 2)
    x, *weights = inputs
    with torch.no_grad():
        for now in torch.arange(4001).split([3000, 1000, 1]):
            y = s4d(x[:, now], *weights, state=state)
    same(y.double(), want[:, -1:], 1e-4)  # z rounded to float32 is multiplied by 3000 tokens


def test_narrower_types() -> None:
    x, *weights = (tensor.detach() for tensor in draw(13, dtype=torch.float32))
    state = torch.zeros(2, 3, 4, 2, dtype=torch.bfloat16)
    y = s4d(x.bfloat16(), *weights, state=state)
    want, final = reference_s4d.s4d(x.bfloat16().double(), *(w.double() for w in weights))
    assert y.dtype == torch.bfloat16
    same(y.double(), want, 4 * torch.finfo(torch.bfloat16).eps)
    same(state.double(), final, 4 * torch.finfo(torch.bfloat16).eps)


# --- its parts, and the laws of operations ---------------------------------------------------------


@pytest.mark.parametrize("T", LENGTHS)
def test_sums_of_powers(T: int) -> None:
    """Against the powers written out, with several coefficients for the same z; and the transpose."""
    generator = torch.Generator().manual_seed(T)
    z, c = (torch.randn(shape, dtype=torch.complex128, generator=generator) for shape in ((3, 4), (2, 3, 4)))
    z = torch.complex(-z.real.abs() / 4, z.imag)
    powers = (z[:, :, None] * torch.arange(T)).exp()  # [D, N, T]
    same(vandermonde(c, z, T), 2 * torch.einsum("bdn,dnl->bdl", c, powers).real)
    x = torch.randn(2, 3, T, dtype=torch.float64, generator=generator)
    want = torch.einsum("bdl,dnl->bdn", x.to(powers.dtype), powers)
    same(torch.view_as_real(moments(x, z)), torch.view_as_real(want))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
def test_gradcheck(packed: bool, rule: str) -> None:
    inputs = draw(5, D=2, pairs=2)
    positions = torch.tensor([[0, 1, 0, 1, 2], [0, 1, 2, 3, 4]]) if packed else None
    options = {"discretisation": rule, "positions": positions}
    assert torch.autograd.gradcheck(lambda *args: s4d(*args, **options), inputs, atol=1e-7)


@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
def test_opcheck(packed: bool) -> None:
    inputs = draw(5, dtype=torch.float32)
    positions = positions_of(5) if packed else None
    plain = [tensor.detach() for tensor in inputs]
    for rule, initial in (("zoh", None), ("bilinear", state_of(plain))):
        torch.library.opcheck(s4d_module.s4d_fwd, (*inputs, positions, initial, rule))
        y, kernel, _ = s4d_module.s4d_fwd(*plain, positions, initial, rule)
        torch.library.opcheck(s4d_module.s4d_bwd, (y, kernel, *plain, positions, initial, rule))
    here = None if positions is None else positions[:, :1]
    torch.library.opcheck(s4d_module.s4d_step, (plain[0][:, :1], *plain[1:], here, state_of(plain), "zoh"))


def test_compiles_without_breaks() -> None:
    inputs, positions = draw(13, dtype=torch.float32), positions_of(13)

    def loss(*args: Tensor) -> Tensor:
        return s4d(*args, positions=positions).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(function(*inputs), inputs) for function in (compiled, loss))
    assert all(map(torch.equal, got, want))


def test_a_documents_transform_is_twice_its_length() -> None:
    assert [fft_conv_module.padded(n) for n in (1, 2, 3, 8, 9)] == [1, 2, 4, 8, 16]
    x, kernel = torch.randn(1, 9, 2), torch.randn(2, 9)
    want = torch.stack([sum(kernel[:, t - s] * x[0, s] for s in range(t + 1)) for t in range(9)])
    same(fft_conv(x, kernel, None)[0], want, 1e-5)  # float32


# --- FLOPs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", LENGTHS)
def test_kernel_flops_are_the_analysed_ones(T: int) -> None:
    analysed = s4d_flops(Const(3), Const(4))
    inputs = draw(T)
    with FlopCounterMode(display=False) as counted:
        y = s4d(*inputs)
    assert counted.get_total_flops() == analysed.forward.at({"B": 2, "T": T})
    with FlopCounterMode(display=False) as counted:
        y.sum().backward()
    assert counted.get_total_flops() == analysed.backward.at({"B": 2, "T": T})
    assert s4d_module.step_flops(2, 3, 4) == analysed.model.at({"B": 2, "T": 1})


class Counted(float):
    """A number that counts the operations in which it takes part."""

    total = 0

    def _made(self, value: float) -> Counted:
        Counted.total += 1
        return Counted(value)

    def __add__(self, other: float) -> Counted:
        return self._made(float(self) + float(other))

    def __sub__(self, other: float) -> Counted:
        return self._made(float(self) - float(other))

    def __mul__(self, other: float) -> Counted:
        return self._made(float(self) * float(other))


def test_model_flops_are_those_of_the_recurrence() -> None:
    """The paper's recurrence in real numbers, each operation counted as it is carried out; and it is the recurrence."""
    T, pairs = 5, 4
    inputs = [tensor.detach() for tensor in draw(T, D=1, pairs=pairs)]
    x, A_log, A_imag, C, D, log_dt = inputs
    A, C = torch.complex(-A_log.exp(), A_imag)[0], torch.view_as_complex(C)[0]
    a = (log_dt.exp() * A).exp()
    c = C * (a - 1) / A
    state = [(Counted(0), Counted(0))] * pairs
    Counted.total, ys = 0, []
    for number in x[0, :, 0].tolist():
        u, y = Counted(number), Counted(0)
        for n in range(pairs):
            (re, im), (a_re, a_im) = state[n], (float(a[n].real), float(a[n].imag))
            re, im = re * a_re - im * a_im + u, im * a_re + re * a_im
            state[n] = re, im
            y = y + (re * float(c[n].real) - im * float(c[n].imag))
        ys.append(y * 2 + u * float(D[0]))
    assert Counted.total == s4d_flops(Const(1), Const(pairs)).model.at({"B": 1, "T": T})
    same(torch.tensor(list(map(float, ys)), dtype=x.dtype), s4d(*inputs)[0, :, 0])


def test_the_products_of_powers_are_what_torch_counts() -> None:
    c, z = torch.randn(3, 4, dtype=torch.complex64), -torch.rand(3, 4).to(torch.complex64)
    for function in (lambda: vandermonde(c, z, 13), lambda: moments(torch.randn(3, 13), z)):
        with FlopCounterMode(display=False) as counted:
            function()
        assert counted.get_total_flops() == product_flops(3, 13, 4) == 2 * 3 * 16 * 8


# --- initialisation, and what cannot be ------------------------------------------------------------


def test_it_begins_as_its_paper() -> None:
    """arXiv:2206.11893, equations (8) and (9): S4D-Inv and S4D-Lin; dt log-uniform."""
    for function, A in ((s4d_initialise.A_linear_, lambda n: math.pi * n), (s4d_initialise.A_inverse_, inverse)):
        imag = torch.empty(2, 8)
        function(imag)
        torch.testing.assert_close(imag, torch.tensor([A(n) for n in range(8)]).expand(2, 8), rtol=1e-6, atol=1e-6)
    real, log_dt = torch.empty(2, 8), torch.empty(1000)
    s4d_initialise.A_half_(real)
    torch.testing.assert_close(-real.exp(), torch.full((2, 8), -0.5))
    s4d_initialise.log_dt_(log_dt, 0.001, 0.1, torch.Generator().manual_seed(0))
    assert math.log(0.001) <= float(log_dt.min()) < float(log_dt.max()) <= math.log(0.1) + 1e-6
    assert abs(float(log_dt.mean()) - math.log(0.01)) < 0.2  # 5 standard errors of a thousand draws


def inverse(n: int) -> float:
    return 16 / math.pi * (16 / (2 * n + 1) - 1)


def test_states_are_pairs() -> None:
    with pytest.raises(DiagnosticError) as raised:
        compiler.load(Source("spec", "vocab 9; d_model 8; mlp none; block < s4(d_state=5) >"))
    (found,) = raised.value.diagnostics
    assert (found.code, found.labels[0].span.text) == ("odd-state", "5")
