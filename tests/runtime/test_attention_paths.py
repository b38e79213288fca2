"""The implementations of attention that other devices take, as far as a CPU can tell.

The plain products are run as they are. For the FlashAttention kernels a stand-in follows their contract, so that what
is tested is our side of it: layouts, bounds of documents, windows, padding.
"""

import pytest
import torch
from torch import Tensor

from archc.codegen.runtime import attention_paths as paths
from archc.codegen.runtime.attention import attention, attention_bwd, attention_fwd

from .test_attention import EXACT, SCALE, SHAPES, documents, draw, new_state, stream


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_plain_path_equals_the_kernel(shape: tuple[int, ...], window: int | None) -> None:
    """The path of CUDA float32 and float64, here on the CPU."""
    q, k, v = draw(*shape)
    positions = documents(*shape[:2], 3)
    mask = paths.visible(shape[1], shape[1], positions, window)
    out, lse = paths.math_forward(q, k, v, mask, SCALE)
    want, want_lse = attention_fwd(q, k, v, positions, SCALE, window)
    torch.testing.assert_close(out, want, **EXACT)
    torch.testing.assert_close(lse, want_lse, **EXACT)
    grad = torch.randn_like(out)
    got = paths.math_backward(grad, q, k, v, out, mask, SCALE)
    for mine, theirs in zip(got, attention_bwd(grad, q, k, v, want, want_lse, positions, SCALE, window), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_plain_decoding_masks_what_is_not_written(window: int | None, packed: bool) -> None:
    """On CUDA a step looks at the whole cache, whatever its length, for that would have to be waited for."""
    q, k, v = draw(2, 9, 4, 2, 8, 8)
    positions = documents(2, 9, 6) if packed else None
    want = attention(q, k, v, scale=SCALE, window=window, positions=positions)
    state = new_state(k, v, window or 12)
    for t in range(9):
        now = slice(t, t + 1)
        at = None if positions is None else positions[:, now]
        attention(q[:, now], k[:, now], v[:, now], scale=SCALE, window=window, positions=at, state=state)
        mask = paths.visible_slots(window or 12, window or 12, state.length, at, window)
        out, _ = paths.math_forward(q[:, now], state.k, state.v, mask, SCALE)
        torch.testing.assert_close(out, want[:, now], **EXACT)
        state.length.add_(1)


@pytest.mark.parametrize("packed", [False, True])
def test_layout_for_the_cuda_kernels(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of the FlashAttention kernels, with a stand-in that follows their contract."""
    q, k, v = draw(2, 9, 4, 2, 5, 3)
    positions, window = documents(2, 9, 4) if packed else None, 4
    grad = torch.randn(2, 9, 4, 3, dtype=torch.float64)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", flash_forward)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_backward", flash_backward)
    out, lse = paths._flash_forward(q, k, v, positions, SCALE, window)
    want, want_lse = attention_fwd(q, k, v, positions, SCALE, window)
    torch.testing.assert_close(out, want, **EXACT)
    torch.testing.assert_close(lse, want_lse, **EXACT)
    got = paths._flash_backward(grad, q, k, v, want, want_lse, positions, SCALE, window)
    for mine, theirs in zip(got, attention_bwd(grad, q, k, v, want, want_lse, positions, SCALE, window), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_layout_for_the_cuda_decoding(window: int | None, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = draw(2, 9, 4, 2, 8, 8)
    positions = documents(2, 9, 5) if packed else None
    want = stream(q, k, v, [1] * 9, window or 16, window, positions)
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", flash_forward)
    monkeypatch.setattr(paths, "_is_flash", lambda q, v: q.shape[1] == 1)
    torch.testing.assert_close(stream(q, k, v, [1] * 9, window or 16, window, positions), want, **EXACT)


def flash_segments(q: Tensor, k: Tensor, bounds_q: Tensor | None, bounds_k: Tensor | None, used: Tensor | None):
    """Slices of flattened queries and keys, one pair a sequence."""
    if bounds_q is None:
        return [
            (slice(b * q.shape[1], (b + 1) * q.shape[1]), slice(b * k.shape[1], (b + 1) * k.shape[1]))
            for b in range(len(q))
        ]
    assert bounds_q.dtype == bounds_k.dtype == torch.int32
    ends = bounds_k[1:] if used is None else bounds_k[:-1] + used
    rows = zip(bounds_q[:-1].tolist(), bounds_q[1:].tolist(), strict=True)
    keys = zip(bounds_k[:-1].tolist(), ends.tolist(), strict=True)
    return [(slice(*row), slice(*key)) for row, key in zip(rows, keys, strict=True)]


def flash_mask(T: int, S: int, causal: bool, left: int) -> Tensor:
    i, j = torch.arange(S - T, S)[:, None], torch.arange(S)
    return ((j <= i) | (not causal)) & ((j >= i - left) | (left < 0))


def flash_forward(
    q,
    k,
    v,
    bounds_q,
    bounds_k,
    max_q,
    max_k,
    dropout,
    causal,
    debug,
    *,
    scale,
    window_size_left=-1,
    window_size_right=-1,
    seqused_k=None,
):
    assert q.shape[-1] % 8 == 0
    flat = [x.flatten(0, 1) if bounds_q is None else x for x in (q, k, v)]
    out, lse = torch.zeros_like(flat[0]), torch.zeros(q.shape[-2], len(flat[0]), dtype=q.dtype)
    for rows, keys in flash_segments(q, k, bounds_q, bounds_k, seqused_k):
        T, S = rows.stop - rows.start, keys.stop - keys.start
        assert max_q >= T
        assert max_k >= S
        mask = flash_mask(T, S, causal, window_size_left)
        part, part_lse = paths.math_forward(
            flat[0][None, rows], flat[1][None, keys], flat[2][None, keys], mask[None], scale
        )
        out[rows], lse[:, rows] = part[0], part_lse[0] if S else torch.inf
    if bounds_q is None:
        return out.view(q.shape), lse.view(q.shape[2], *q.shape[:2]).transpose(0, 1), None, None, None
    return out, lse, None, None, None


def flash_backward(
    grad,
    q,
    k,
    v,
    out,
    lse,
    bounds_q,
    bounds_k,
    max_q,
    max_k,
    dropout,
    causal,
    seed,
    offset,
    *,
    scale,
    window_size_left,
    window_size_right,
):
    assert lse.shape == ((q.shape[0], q.shape[2], q.shape[1]) if bounds_q is None else (q.shape[1], q.shape[0]))
    flat = [x.flatten(0, 1) if bounds_q is None else x for x in (grad, q, k, v, out)]
    grads = [torch.zeros_like(x) for x in flat[1:4]]
    for rows, keys in flash_segments(q, k, bounds_q, bounds_k, None):
        mask = flash_mask(rows.stop - rows.start, keys.stop - keys.start, causal, window_size_left)
        dy, qs, ks, vs, y = (x[None, s] for x, s in zip(flat, (rows, rows, keys, keys, rows), strict=True))
        for total, part, at in zip(
            grads, paths.math_backward(dy, qs, ks, vs, y, mask[None], scale), (rows, keys, keys), strict=True
        ):
            total[at] = part[0]
    return [x.view(like.shape) for x, like in zip(grads, (q, k, v), strict=True)]


def test_document_bounds_are_found_once_and_follow_changes() -> None:
    positions = documents(2, 6, 2)
    bounds, longest = paths._documents(positions)
    assert bounds.tolist() == [0, 2, 6, 9, 12]
    assert longest == 4
    assert paths._documents(positions)[0] is bounds
    positions[1, 3] = 1
    assert paths._documents(positions)[0].tolist() == [0, 2, 6, 12]
