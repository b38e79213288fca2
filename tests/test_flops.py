"""FLOP formulas of ops against an independent count: each elementary operation of the mathematics, one by one.

The loops below are written from the equations, not from the ops. A counter sees every tensor operation that they
execute; what it does not know it refuses, so that nothing goes uncounted. That a loop computes what it should is
checked as well, in float64 against torch's own operators or autograd (1e-10 of the largest value: a sum in another
order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archc import compiler
from archc.diagnostics import Source
from archc.ir.op import Flops, Op
from archc.ir.values import BATCH, TIME, Axis, Value, constant_axis
from archc.ops.attention import Attention, causal_pairs
from archc.ops.conv import CausalConv1d
from archc.ops.ends import TiedHead
from archc.ops.linear import ExpertLinear, Linear
from archc.ops.scan import SelectiveScan
from archc.passes.workload import Workload

torch = pytest.importorskip("torch")

TOLERANCE = 1e-10
Tensor = Any


class Counter(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc,name-defined]
    """Counts scalar operations: one for each element that arithmetic writes, n for a sum of n terms.

    So a dot product of n terms counts 2 n, as a multiply-add is 2 FLOPs.
    """

    ARITHMETIC = ("mul", "add", "sub", "neg", "exp", "div")
    FREE = ("view", "select", "slice", "unsqueeze", "zeros", "zeros_like", "stack", "unbind", "copy")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.counting = True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__.rstrip("_")
        if self.counting and name in self.ARITHMETIC:
            self.count += result.numel()
        elif self.counting and name == "sum":
            self.count += args[0].numel()
        elif self.counting and name not in self.FREE:
            raise AssertionError(f"nobody counts {name}")
        return result

    @contextmanager
    def pointwise(self) -> Iterator[None]:
        """What counts nothing by convention: a softmax, an activation."""
        self.counting = False
        yield
        self.counting = True


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= TOLERANCE * (theirs.abs().max() + 1))


def counted(loop: Callable[[Counter], Any]) -> tuple[int, Any]:
    with Counter() as counter:
        result = loop(counter)
    return counter.count, result


def said(op: Op, inputs: tuple[Value, ...], *, B: int, T: int, P: int = 0) -> tuple[int, int, int]:
    """Model, forward and backward FLOPs, as the op says."""
    outputs = tuple(Value(result.axes, type=result.type) for result in op.results(*inputs))
    flops: Flops = op.flops(inputs, outputs)
    bindings = {"B": B, "T": T, "P": P}
    return flops.model.at(bindings), flops.forward.at(bindings), flops.backward.at(bindings)


def value(*axes: Axis) -> Value:
    return Value((BATCH, TIME, *axes))


def axis(name: str, size: int) -> Axis:
    return constant_axis(name, size)


# --- projections -----------------------------------------------------------------------------------


def multiply(rows: Tensor, weight: Tensor) -> Tensor:
    """`rows [n, in]` by `weight [out, in]`, one dot product at a time."""
    return torch.stack([torch.stack([(row * weight[o]).sum() for o in range(len(weight))]) for row in rows])


def multiply_backward(rows: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    d_rows, d_weight = torch.zeros_like(rows), torch.zeros_like(weight)
    for n in range(len(rows)):
        for o in range(len(weight)):
            d_rows[n] += dy[n, o] * weight[o]
            d_weight[o] += dy[n, o] * rows[n]
    return d_rows, d_weight


@pytest.mark.parametrize(("B", "T", "d_in", "parts"), [(1, 1, 1, (1,)), (2, 3, 5, (7,)), (3, 5, 7, (3, 1, 2))])
def test_linear(B: int, T: int, d_in: int, parts: tuple[int, ...]) -> None:
    to = tuple(axis(f"part{i}", size) for i, size in enumerate(parts))
    op = Linear(path="w", d_in=axis("d_in", d_in), to=to)
    x, weight, dy = draw(B * T, d_in), draw(sum(parts), d_in), draw(B * T, sum(parts))
    forward, y = counted(lambda _: multiply(x, weight))
    backward, (dx, dw) = counted(lambda _: multiply_backward(x, weight, dy))
    assert close(y, x @ weight.T)
    assert close(dx, dy @ weight)
    assert close(dw, dy.T @ x)
    assert said(op, (value(op.d_in),), B=B, T=T) == (forward, forward, backward)


def test_a_tied_head_is_a_projection() -> None:
    vocab, d_model = axis("vocab", 11), axis("d_model", 6)
    tied = said(TiedHead(vocab=vocab), (value(d_model),), B=2, T=3)
    assert tied == said(Linear(path="w", d_in=d_model, to=(vocab,)), (value(d_model),), B=2, T=3)


@pytest.mark.parametrize(("B", "T", "experts", "top_k", "d_in", "d_out"), [(1, 5, 4, 2, 3, 5), (2, 3, 7, 1, 5, 2)])
def test_expert_linear(B: int, T: int, experts: int, top_k: int, d_in: int, d_out: int) -> None:
    """Each token by the matrices of its own experts, whichever they are."""
    op = ExpertLinear(
        path="experts.w", experts=axis("E", experts), top_k=top_k, d_in=axis("in", d_in), to=axis("out", d_out)
    )
    x, weight = draw(B * T, d_in), draw(experts, d_out, d_in)
    chosen = [[(token + i) % experts for i in range(top_k)] for token in range(B * T)]

    def forward(_: Counter) -> None:
        for token, of_token in enumerate(chosen):
            for expert in of_token:
                multiply(x[token : token + 1], weight[expert])

    def backward(_: Counter) -> None:
        for token, of_token in enumerate(chosen):
            for expert in of_token:
                multiply_backward(x[token : token + 1], weight[expert], torch.zeros(1, d_out, dtype=x.dtype))

    rows = Axis("rows", BATCH.symbol * TIME.symbol * top_k)
    inputs = (Value((rows, op.d_in)), Value((rows,), type="plan"))
    assert said(op, inputs, B=B, T=T) == (counted(forward)[0], counted(forward)[0], counted(backward)[0])


# --- convolution -----------------------------------------------------------------------------------


def convolve(padded: Tensor, weight: Tensor) -> Tensor:
    """`y[t] = sum_k w[k] x[t - (K-1) + k]`: `padded [T + K - 1, C]`, `weight [K, C]`."""
    K, T = len(weight), len(padded) - len(weight) + 1
    out = []
    for t in range(T):
        y = torch.zeros_like(padded[0])
        for k in range(K):
            y = y + weight[k] * padded[t + k]
        out.append(y)
    return torch.stack(out)


def convolve_backward(padded: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    d_padded, d_weight = torch.zeros_like(padded), torch.zeros_like(weight)
    for t in range(len(dy)):
        for k in range(len(weight)):
            d_padded[t + k] += weight[k] * dy[t]
            d_weight[k] += padded[t + k] * dy[t]
    return d_padded, d_weight


@pytest.mark.parametrize(("T", "C", "K"), [(1, 1, 1), (7, 3, 4), (3, 5, 4), (9, 2, 3)])
def test_causal_conv1d(T: int, C: int, K: int) -> None:
    """Every output looks at K inputs: before the first token these are the cache's, or zeros."""
    op = CausalConv1d(path="conv", channels=axis("C", C), width=axis("K", K))
    padded, weight, dy = draw(T + K - 1, C), draw(K, C), draw(T, C)
    forward, y = counted(lambda _: convolve(padded, weight))
    backward, (dx, dw) = counted(lambda _: convolve_backward(padded, weight, dy))
    x, w = padded.T[None].clone().requires_grad_(), weight.T[:, None].clone().requires_grad_()
    expected = torch.nn.functional.conv1d(x, w, groups=C)
    expected.backward(dy.T[None])
    assert close(y, expected[0].T.detach())
    assert close(dx, x.grad[0].T)
    assert close(dw, w.grad[:, 0].T)
    assert said(op, (value(op.channels),), B=1, T=T) == (forward, forward, backward)
    assert said(op, (value(op.channels),), B=3, T=T) == (3 * forward, 3 * forward, 3 * backward)


# --- attention -------------------------------------------------------------------------------------


def visible(t: int, past: int, window: int | None) -> range:
    """The keys that the t-th new token sees: itself and what came before, at most `window` in all."""
    place = past + t
    return range(0 if window is None else max(0, place - window + 1), place + 1)


def attend(counter: Counter, q: Tensor, k: Tensor, v: Tensor, past: int, window: int | None) -> tuple[Tensor, Any]:
    """`q [T, H, K]`, `k [P + T, G, K]`, `v [P + T, G, V]`, one pair of a query and a key at a time."""
    out = torch.zeros(*q.shape[:2], v.shape[-1], dtype=q.dtype)
    probabilities: dict[tuple[int, int], Tensor] = {}
    shared = q.shape[1] // k.shape[1]
    for t in range(len(q)):
        for h in range(q.shape[1]):
            scores = torch.stack([(q[t, h] * k[s, h // shared]).sum() for s in visible(t, past, window)])
            with counter.pointwise():
                p = scores.softmax(0)
            probabilities[t, h] = p
            for i, s in enumerate(visible(t, past, window)):
                out[t, h] += p[i] * v[s, h // shared]
    return out, probabilities


def attend_backward(
    counter: Counter, q: Tensor, k: Tensor, v: Tensor, do: Tensor, past: int, window: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores are computed again, as every kernel does that does not store them."""
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    shared = q.shape[1] // k.shape[1]
    for t in range(len(q)):
        for h in range(q.shape[1]):
            g, keys = h // shared, visible(t, past, window)
            scores = torch.stack([(q[t, h] * k[s, g]).sum() for s in keys])
            dp = torch.stack([(do[t, h] * v[s, g]).sum() for s in keys])
            with counter.pointwise():
                p = scores.softmax(0)
                ds = p * (dp - (p * dp).sum())
            for i, s in enumerate(keys):
                dv[s, g] += p[i] * do[t, h]
                dq[t, h] += ds[i] * k[s, g]
                dk[s, g] += ds[i] * q[t, h]
    return dq, dk, dv


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize(("T", "P"), [(5, 0), (1, 6), (3, 2), (4, 7)])
def test_attention(T: int, P: int, window: int | None) -> None:
    H, G, K, V = 4, 2, 3, 5
    op = Attention(scale=1.0, kv_heads=axis("G", G), d_head=axis("K", K), d_head_v=axis("V", V), window=window)
    q, k, v, do = draw(T, H, K), draw(P + T, G, K), draw(P + T, G, V), draw(T, H, V)
    forward, (y, _) = counted(lambda counter: attend(counter, q, k, v, P, window))
    backward, gradients = counted(lambda counter: attend_backward(counter, q, k, v, do, P, window))

    leaves = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
    qs, ks, vs = leaves[0], *(leaf.repeat_interleave(H // G, 1) for leaf in leaves[1:])
    mask = torch.tensor([[s in visible(t, P, window) for s in range(P + T)] for t in range(T)])
    scores = torch.einsum("thk,shk->hts", qs, ks).masked_fill(~mask, float("-inf"))
    expected = torch.einsum("hts,shv->thv", scores.softmax(-1), vs)
    expected.backward(do)
    assert close(y, expected.detach())
    assert all(close(ours, leaf.grad) for ours, leaf in zip(gradients, leaves, strict=True))

    inputs = (value(axis("H", H), op.d_head), value(op.kv_heads, op.d_head), value(op.kv_heads, op.d_head_v))
    assert said(op, inputs, B=1, T=T, P=P) == (forward, forward, backward)
    assert said(op, inputs, B=2, T=T, P=P) == (2 * forward, 2 * forward, 2 * backward)


@given(T=st.integers(1, 40), P=st.integers(0, 40), window=st.one_of(st.none(), st.integers(1, 90)))
def test_causal_pairs_are_counted_one_by_one(T: int, P: int, window: int | None) -> None:
    assert causal_pairs(window).at({"T": T, "P": P}) == sum(len(visible(t, P, window)) for t in range(T))


# --- selective scan --------------------------------------------------------------------------------


def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """`h = exp(dt A) h + (dt x) B`, `y = C h + D x`: x, dt `[T, D]`; A `[D, N]`; B, C `[T, N]`; D `[D]`."""
    h = torch.zeros_like(A)
    out = []
    for t in range(len(x)):
        a = (dt[t, :, None] * A).exp()
        h = a * h + (dt[t] * x[t])[:, None] * B[t]
        out.append((h * C[t]).sum(-1) + D * x[t])
    return torch.stack(out)


def scan_backward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """By hand: states forward once more, then the adjoint `g` of each state from the last token to the first."""
    decays, inputs, states = [], [], [torch.zeros_like(A)]
    for t in range(len(x)):
        decays.append((dt[t, :, None] * A).exp())
        inputs.append(dt[t] * x[t])
        states.append(decays[t] * states[t] + inputs[t][:, None] * B[t])
    dx, ddt, dB, dC = (torch.zeros_like(tensor) for tensor in (x, dt, B, C))
    dA, dD, g = torch.zeros_like(A), torch.zeros_like(D), torch.zeros_like(A)
    ahead = torch.zeros_like(A)  # the decay of the following token
    for t in reversed(range(len(x))):
        g = ahead * g + dy[t, :, None] * C[t]
        dC[t] = (dy[t, :, None] * states[t + 1]).sum(0)
        dB[t] = (g * inputs[t][:, None]).sum(0)
        d_input = (g * B[t]).sum(1)
        through_decay = g * states[t] * decays[t]
        dA += through_decay * dt[t, :, None]
        ddt[t] = (through_decay * A).sum(1) + d_input * x[t]
        dx[t] = d_input * dt[t] + D * dy[t]
        dD += dy[t] * x[t]
        ahead = decays[t]
    return dx, ddt, dA, dB, dC, dD


@pytest.mark.parametrize(("T", "d_inner", "d_state"), [(1, 1, 1), (5, 3, 2), (7, 2, 16), (3, 5, 9)])
def test_selective_scan(T: int, d_inner: int, d_state: int) -> None:
    op = SelectiveScan(d_inner=axis("d_inner", d_inner), d_state=axis("d_state", d_state))
    x, dt, dy, D = draw(T, d_inner), draw(T, d_inner).exp(), draw(T, d_inner), draw(d_inner)
    A, B, C = -draw(d_inner, d_state).exp(), draw(T, d_state), draw(T, d_state)
    arguments = (x, dt, A, B, C, D)
    forward, y = counted(lambda _: scan(*arguments))
    backward, gradients = counted(lambda _: scan_backward(*arguments, dy))

    leaves = [tensor.clone().requires_grad_() for tensor in arguments]
    expected = scan(*leaves)
    expected.backward(dy)
    assert close(y, expected.detach())
    assert all(close(ours, leaf.grad) for ours, leaf in zip(gradients, leaves, strict=True))

    inputs = (value(op.d_inner), value(op.d_inner), value(op.d_state), value(op.d_state))
    assert said(op, inputs, B=1, T=T) == (forward, forward, backward)
    assert said(op, inputs, B=2, T=T) == (2 * forward, 2 * forward, 2 * backward)


# --- whole models ----------------------------------------------------------------------------------

MODEL = """
vocab {vocab}; d_model {d_model}; mlp swiglu({d_ff})
block x{repeats} < mamba(d_state={d_state}) x2, attn({heads}) window({window}) > moe top2/{experts} every 3
"""


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.fixed_dictionaries(
        {
            "vocab": st.integers(1, 300),
            "d_model": st.integers(1, 9).map(lambda n: 8 * n),
            "d_ff": st.integers(1, 99),
            "repeats": st.integers(1, 1000),
            "d_state": st.integers(1, 17),
            "heads": st.sampled_from(["mha(4)", "gqa(8, 2)", "mqa(2)"]),
            "window": st.integers(1, 50),
            "experts": st.integers(2, 7),
        }
    ),
    tied=st.booleans(),
    T=st.integers(1, 60),
    batch=st.integers(1, 3),
)
def test_a_model_is_its_matrices_its_pairs_and_its_scans(sizes: dict[str, Any], tied: bool, T: int, batch: int) -> None:
    """Every active weight of a matrix is one multiply-add for each token; the rest has formulas of its own."""
    text = MODEL.format(**sizes) + ("tied" if tied else "")
    analysis = compiler.analyse(compiler.load(Source("test", text)), Workload(T, batch))
    tensors = analysis.params.tensors
    matrices = sum(t.active for t in tensors if len(t.shape) > 1 and not t.name.endswith("A_log"))
    matrices -= 0 if tied else analysis.params.embedding
    d_model = sizes["d_model"]
    pairs = sum(len(visible(t, 0, sizes["window"])) for t in range(T))
    attention = 4 * d_model * pairs * sizes["repeats"]
    scans = 2 * d_model * (7 * sizes["d_state"] + 3) * 2 * sizes["repeats"]
    assert analysis.flops.total.model == batch * (T * (2 * matrices + scans) + attention)
    past = min(T, sizes["window"])
    assert analysis.flops.total.decode == batch * (2 * matrices + scans + 4 * d_model * past * sizes["repeats"])


def test_shares_of_experts_are_exact() -> None:
    analysis = compiler.analyse(
        compiler.load(Source("test", "vocab 8; d_model 8; mlp swiglu(5); block < mamba > moe top2/7")), Workload(1)
    )
    routed = [tensor for tensor in analysis.params.tensors if tensor.routed]
    assert {tensor.active_share for tensor in routed} == {Fraction(2, 7)}
    assert sum(tensor.total - tensor.active for tensor in routed) == 5 * 3 * 8 * 5
