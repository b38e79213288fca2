"""Attention against a reference that looks at one query at a time."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archc.codegen.runtime import attention as attention_module
from archc.codegen.runtime.attention import AttentionState, attention, attention_bwd, attention_cached, attention_fwd
from archc.codegen.runtime.cache import Cache

EXACT = {"rtol": 0.0, "atol": 1e-10}  # float64: rounding of a few hundred sums of numbers near 1
SCALE = 0.3

# (B, T, H, G, K, V): grouped, multi-query, odd head counts, values of another width
SHAPES = [(2, 13, 6, 3, 8, 8), (1, 9, 5, 1, 7, 7), (2, 5, 3, 3, 4, 6), (1, 8, 4, 2, 6, 3)]
WINDOWS = [None, 1, 4, 13, 40]


def draw(B: int, T: int, H: int, G: int, K: int, V: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(T * H + K)
    shapes = [(B, T, H, K), (B, T, G, K), (B, T, G, V)]
    return [torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes]


def documents(B: int, T: int, *starts: int) -> Tensor:
    """Positions of rows whose documents start at 0 and `starts`, shifted by one from row to row."""
    positions = torch.empty(B, T, dtype=torch.int64)
    for b in range(B):
        begins = {0, *(start + b for start in starts)}
        for t in range(T):
            positions[b, t] = 0 if t in begins else positions[b, t - 1] + 1
    return positions


def naive(q: Tensor, k: Tensor, v: Tensor, window: int | None = None, positions: Tensor | None = None) -> Tensor:
    """One query at a time: a product with the keys that it sees and one with their values."""
    B, T, H, _ = q.shape
    rows = []
    for b, t, h in itertools.product(range(B), range(T), range(H)):
        reach = t if positions is None else int(positions[b, t])
        first = t - min(reach, T if window is None else window - 1)
        group = h // (H // k.shape[2])
        scores = torch.bmm(q[b, t, h][None, None], k[b, first : t + 1, group].t()[None]) * SCALE
        rows.append(torch.bmm(scores.softmax(-1), v[b, first : t + 1, group][None])[0, 0])
    return torch.stack(rows).view(B, T, H, -1)


def new_state(k: Tensor, v: Tensor, capacity: int) -> AttentionState:
    B, _, G, K = k.shape
    length = torch.zeros((), dtype=torch.int64)
    return AttentionState(k.new_zeros(B, capacity, G, K), v.new_zeros(B, capacity, G, v.shape[3]), length)


def stream(
    q: Tensor, k: Tensor, v: Tensor, chunks: list[int], capacity: int, window: int | None, positions: Tensor | None
) -> Tensor:
    state = new_state(k, v, capacity)
    out, start = [], 0
    for n in chunks:
        now = slice(start, start + n)
        packed = None if positions is None else positions[:, now]
        out.append(
            attention(q[:, now], k[:, now], v[:, now], scale=SCALE, window=window, positions=packed, state=state)
        )
        state.length.add_(n)
        start += n
    return torch.cat(out, 1)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_one_query_at_a_time(shape: tuple[int, ...], window: int | None) -> None:
    q, k, v = draw(*shape)
    for positions in (None, documents(*shape[:2], 3, 4)):
        got = attention(q, k, v, scale=SCALE, window=window, positions=positions)
        torch.testing.assert_close(got, naive(q, k, v, window, positions), **EXACT)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("chunks", [[13], [1] * 13, [6, 7], [5, 1, 1, 6], [2, 9, 2], [12, 1]])
@pytest.mark.parametrize("starts", [None, (), (4, 9)], ids=["no positions", "one document", "packed"])
def test_chunks_and_steps_equal_the_whole(
    chunks: list[int], window: int | None, starts: tuple[int, ...] | None
) -> None:
    q, k, v = draw(2, 13, 6, 3, 8, 5)
    positions = None if starts is None else documents(2, 13, *starts)
    whole = attention(q, k, v, scale=SCALE, window=window, positions=positions)
    context = 16
    capacities = {context, context if window is None else min(context, window)}
    for capacity in capacities:
        torch.testing.assert_close(stream(q, k, v, chunks, capacity, window, positions), whole, **EXACT)


def test_packed_documents_equal_separate_ones() -> None:
    q, k, v = draw(1, 13, 6, 3, 8, 8)
    got = attention(q, k, v, scale=SCALE, window=4, positions=documents(1, 13, 5, 6))
    parts = [slice(0, 5), slice(5, 6), slice(6, 13)]
    want = torch.cat([attention(q[:, p], k[:, p], v[:, p], scale=SCALE, window=4) for p in parts], 1)
    torch.testing.assert_close(got, want, **EXACT)


def test_window_sees_exactly_its_width() -> None:
    T, window = 9, 4
    q, k, _ = draw(1, T, 1, 1, 4, 4)
    v = torch.eye(T, dtype=torch.float64).view(1, T, 1, T)
    weights = attention(q, k, v, scale=SCALE, window=window)[0, :, 0]
    assert [int(row.count_nonzero()) for row in weights] == [min(t + 1, window) for t in range(T)]


def test_views_of_a_fused_projection() -> None:
    q, k, v = draw(2, 7, 4, 2, 6, 6)
    fused = torch.cat([x.flatten(2) for x in (q, k, v)], -1)
    views = [x.unflatten(-1, (-1, 6)) for x in fused.split([24, 12, 12], -1)]
    got = attention(*views, scale=SCALE, window=3)
    torch.testing.assert_close(got, attention(q, k, v, scale=SCALE, window=3), **EXACT)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_gradients(window: int | None, packed: bool) -> None:
    q, k, v = (x.requires_grad_() for x in draw(2, 5, 6, 3, 4, 3))
    positions = documents(2, 5, 2) if packed else None

    def run(*args: Tensor) -> Tensor:
        return attention(*args, scale=SCALE, window=window, positions=positions)

    assert torch.autograd.gradcheck(run, (q, k, v))


def test_overfilling_is_an_error() -> None:
    q, k, v = draw(1, 4, 2, 2, 4, 4)
    for chunks in ([3, 1], [1] * 4, [4]):
        with pytest.raises(ValueError, match="do not fit"):
            stream(q, k, v, chunks, 3, None, None)
    with pytest.raises(ValueError, match="do not fit"):  # a window that the context cuts short is no ring
        stream(q, k, v, [4], 3, 8, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precisions(dtype: torch.dtype) -> None:
    q, k, v = draw(2, 65, 4, 2, 16, 16, dtype)
    want = attention(q.double(), k.double(), v.double(), scale=SCALE, window=20)
    got = attention(q, k, v, scale=SCALE, window=20)
    assert got.dtype == dtype
    # float32: 65 sums; bfloat16: inputs are exact, so one rounding of probabilities and outputs (2^-8)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert (got - want).abs().max() <= tolerance * want.abs().max()


def test_cache_may_have_another_dtype() -> None:
    q, k, v = draw(1, 6, 2, 1, 4, 4, torch.float32)
    state = new_state(k.bfloat16(), v.bfloat16(), 8)
    out = []
    for t in range(6):
        out.append(attention(q[:, t : t + 1], k[:, t : t + 1], v[:, t : t + 1], scale=SCALE, state=state))
        state.length.add_(1)
    want = attention(q, k.bfloat16().float(), v.bfloat16().float(), scale=SCALE)
    torch.testing.assert_close(torch.cat(out, 1), want, rtol=0.0, atol=1e-5)  # float32: a dozen sums


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_ops_obey_torch(window: int | None, packed: bool) -> None:
    q, k, v = (x.requires_grad_() for x in draw(2, 5, 4, 2, 4, 3))
    positions = documents(2, 5, 2) if packed else None
    torch.library.opcheck(attention_fwd, (q, k, v, positions, SCALE, window))
    out, lse = attention_fwd(q, k, v, positions, SCALE, window)
    saved = (x.detach() for x in (torch.randn_like(out), q, k, v, out, lse))
    torch.library.opcheck(attention_bwd, (*saved, positions, SCALE, window))
    for n in (1, 5):
        state = new_state(k.detach(), v.detach(), 8)
        part = (x[:, :n].detach() for x in (q, k, v))
        packed_part = None if positions is None else positions[:, :n]
        torch.library.opcheck(attention_cached, (*part, *state, packed_part, SCALE, window))


@pytest.mark.parametrize("packed", [False, True])
def test_compiles_whole(packed: bool) -> None:
    positions = documents(2, 7, 3) if packed else None

    def run(q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None) -> Tensor:
        return attention(q * 2, k, v, scale=SCALE, window=4, positions=positions).square().sum()

    results = []
    for fn in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
        leaves = [x.requires_grad_() for x in draw(2, 7, 4, 2, 8, 8)]
        loss = fn(*leaves, positions)
        loss.backward()
        results.append([loss.detach(), *(x.grad for x in leaves)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, **EXACT)


def test_cached_step_compiles_whole() -> None:
    q, k, v = draw(1, 6, 4, 2, 8, 8)

    @torch.no_grad()
    def step(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> Tensor:
        (state,) = cache.states
        assert isinstance(state, AttentionState)
        out = attention(q, k, v, scale=SCALE, state=state)
        cache.advance(q.shape[1])
        return out

    state = new_state(k, v, 8)
    cache = Cache([state], state.length, 8)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    out = [compiled(q[:, t : t + 1], k[:, t : t + 1], v[:, t : t + 1], cache) for t in range(6)]
    torch.testing.assert_close(torch.cat(out, 1), attention(q, k, v, scale=SCALE), **EXACT)
    assert cache.seen == int(cache.length) == 6


def counted(fn, *args) -> int:
    with FlopCounterMode(display=False) as counter:
        fn(*args)
    return counter.get_total_flops()


@pytest.mark.parametrize("window", [None, 1, 4, 30])
@pytest.mark.parametrize("shape", SHAPES)
def test_flops_equal_the_count_of_one_query_at_a_time(shape: tuple[int, ...], window: int | None) -> None:
    q, k, v = (x.requires_grad_() for x in draw(*shape))

    def forward() -> Tensor:
        return attention(q, k, v, scale=SCALE, window=window)

    forward_count = counted(naive, q, k, v, window)
    assert counted(forward) == forward_count
    # Autograd of the naive form makes four products backward; the fifth computes q k^T again.
    scores_again = counted(lambda: naive(q, k, v[..., :1], window)) * shape[4] // (shape[4] + 1)
    naive_backward = counted(lambda: naive(q, k, v, window).sum().backward()) - forward_count
    assert counted(lambda: forward().sum().backward()) - forward_count == naive_backward + scores_again


def test_flops_helpers() -> None:
    assert attention_module.pairs(6, None) == 21
    assert attention_module.pairs(6, 2) == 11
    forward = attention_module.forward_flops(2, 6, 4, 8, 8, None)
    assert attention_module.backward_flops(2, 6, 4, 8, 8, None) * 2 == forward * 5
