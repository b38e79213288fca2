"""The implementations of attention, and the choice between them.

Which implementation runs, forward and backward alike:

* CUDA, float16 and bfloat16, heads up to 256 wide: the FlashAttention-2 kernels that PyTorch ships. Windows, grouped
  heads and packed documents are native; finding the documents' bounds waits for the GPU once a batch. The exception
  is a chunk that continues a cache and in which documents start, which takes the last path.
* CPU: PyTorch's blocked CPU kernel, with keys and values repeated for grouped heads, and with an explicit mask for
  windows and documents.
* Everything else (CUDA float32 and float64 among it, and scores with a soft cap on every device): plain matrix products
  in `promote(dtype)`, which hold the scores of a block of queries at once.
"""

import weakref

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_math import grouped, math_backward, math_forward

FLASH_WIDTH = 256
"""The widest head of the FlashAttention kernels; they take multiples of 8, to which narrower heads are padded."""


def forward(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None, scale: float, window: int | None, cap: float | None
) -> tuple[Tensor, Tensor]:
    """Attention of the last T of S tokens: q `[B, T, H, K]`, k and v `[B, S, G, .]`."""
    T, S = q.shape[1], k.shape[1]
    if cap is None and _is_flash(q, v) and (positions is None or T == S):
        return _flash_forward(q, k, v, positions, scale, window)
    if cap is None and q.device.type == "cpu":
        return _cpu_forward(q, k, v, _cpu_mask(q, k, positions, window), scale)
    return math_forward(q, k, v, visible(T, S, positions, window, q.device), scale, cap)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; all have T tokens."""
    if cap is None and _is_flash(q, v):
        return _flash_backward(grad, q, k, v, out, lse, positions, scale, window)
    if cap is None and q.device.type == "cpu":
        return _cpu_backward(grad, q, k, v, out, lse, _cpu_mask(q, k, positions, window), scale)
    return math_backward(grad, q, k, v, out, visible(q.shape[1], k.shape[1], positions, window, q.device), scale, cap)


def decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    length: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
    cap: float | None,
) -> Tensor:
    """Attention of one token that the cache already holds: whom it sees depends on ages alone, not on the order."""
    if cap is None and _is_flash(q, v):
        return _flash_decode(q, k.to(q.dtype), v.to(q.dtype), length, positions, scale, window)
    capacity = k.shape[1]
    filled = min(int(length) + 1, capacity) if length.device.type == "cpu" else capacity
    mask = visible_slots(filled, capacity, length, positions, window)
    k, v = k[:, :filled].to(q.dtype), v[:, :filled].to(q.dtype)
    if cap is not None or q.device.type != "cpu":
        return math_forward(q, k, v, mask, scale, cap)[0]
    queries = grouped(q, k.shape[2])[:, 0].transpose(1, 2)  # [B, H / G, G, K]: a group's heads as its queries
    out, _ = _cpu_forward(queries, k, v, _additive(mask, q.dtype), scale)
    return out.transpose(1, 2).reshape(*q.shape[:3], -1)


def visible_slots(n: int, capacity: int, length: Tensor, positions: Tensor | None, window: int | None) -> Tensor:
    """Which of the first n slots of a cache the newest token sees, `[1 or B, 1, n]`."""
    age = (length - torch.arange(n, device=length.device)) % capacity  # how many tokens ago a slot was written
    return (age <= _reach(length, positions, window)[:, None])[:, None]


def _reach(length: Tensor, positions: Tensor | None, window: int | None) -> Tensor:
    """How many tokens back the newest one sees, `[1 or B]`."""
    reach = length if window is None else length.clamp(max=window - 1)
    return reach.view(1) if positions is None else torch.minimum(positions[:, 0], reach)


def visible(T: int, S: int, positions: Tensor | None, window: int | None, device: torch.device | None = None) -> Tensor:
    """Which of S keys each of the last T tokens sees, `[1 or B, T, S]`."""
    query = torch.arange(S - T, S, device=device)[:, None]
    key = torch.arange(S, device=device)
    reach = query[None] if positions is None else positions[..., None]
    if window is not None:
        reach = reach.clamp(max=window - 1)
    return (key <= query) & (key >= query - reach)


# PyTorch's CPU kernel. It wants heads before time, as many key heads as query heads, and one head width.


def _cpu_mask(q: Tensor, k: Tensor, positions: Tensor | None, window: int | None) -> Tensor | None:
    """The additive mask `[1 or B, 1, T, S]`, or None if the kernel's own causal one is meant."""
    T, S = q.shape[1], k.shape[1]
    if T == S and positions is None and (window is None or window >= T):
        return None
    return _additive(visible(T, S, positions, window), q.dtype)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf)[:, None]


def _cpu_forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(*_cpu_layout(q, k, v), 0.0, mask is None, attn_mask=mask, scale=scale)
    return out.transpose(1, 2)[..., : v.shape[3]], lse


def _cpu_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    width = max(q.shape[3], v.shape[3])
    dy, y = (x.transpose(1, 2) for x in _padded(width, grad, out))
    grads = kernel(dy, *_cpu_layout(q, k, v), y, lse, 0.0, mask is None, attn_mask=mask, scale=scale)
    dq, dk, dv = (x.transpose(1, 2) for x in grads)
    dk, dv = (grouped(x, k.shape[2]).sum(3) for x in (dk, dv))
    return dq[..., : q.shape[3]], dk[..., : k.shape[3]], dv[..., : v.shape[3]]


def _cpu_layout(q: Tensor, k: Tensor, v: Tensor) -> list[Tensor]:
    """Heads before time, keys and values repeated for grouped heads, all of one width."""
    repeats = q.shape[2] // k.shape[2]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 2), v.repeat_interleave(repeats, 2)
    return [x.transpose(1, 2) for x in _padded(max(q.shape[3], v.shape[3]), q, k, v)]


def _padded(width: int, *tensors: Tensor) -> list[Tensor]:
    """Zeros appended to the last dimension: they add nothing to a score, and zero columns to an output."""
    return [x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in tensors]


# PyTorch's FlashAttention-2 kernels. They take [B, T, H, K], or packed documents as [tokens, H, K] and their bounds.


def _is_flash(q: Tensor, v: Tensor) -> bool:
    fits = max(q.shape[3], v.shape[3]) <= FLASH_WIDTH
    return q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and fits


def _flash_layout(*tensors: Tensor) -> list[Tensor]:
    """All of one width, a multiple of 8, and contiguous along it."""
    width = max(x.shape[-1] for x in tensors) + 7 & ~7
    return [x if x.stride(-1) == 1 else x.contiguous() for x in _padded(width, *tensors)]


def _flash_forward(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None, scale: float, window: int | None
) -> tuple[Tensor, Tensor]:
    B, T, H, _ = q.shape
    width = v.shape[3]
    bounds, longest_q, longest_k = (None, T, k.shape[1])
    q, k, v = _flash_layout(q, k, v)
    if positions is not None:
        bounds, longest_q = _documents(positions)
        longest_k = longest_q
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        *(q, k, v, bounds, bounds, longest_q, longest_k, 0.0, True, False),
        scale=scale,
        window_size_left=-1 if window is None else window - 1,
        window_size_right=0,
    )
    if positions is not None:  # [H, B * T]
        lse = lse.view(H, B, T).transpose(0, 1)
    return out.view(B, T, H, -1)[..., :width], lse


def _flash_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    positions: Tensor | None,
    scale: float,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    T, shapes = q.shape[1], (q.shape, k.shape, v.shape)
    bounds, longest = None, T
    grad, q, k, v, out = _flash_layout(grad, q, k, v, out)
    if positions is not None:
        bounds, longest = _documents(positions)
        grad, q, k, v, out = (x.flatten(0, 1) for x in (grad, q, k, v, out))
        lse = lse.transpose(0, 1).flatten(1).contiguous()  # flattening alone is a view where T == 1
    unused = torch.empty(2, dtype=torch.uint64, device=q.device)  # the state of the dropout that there is not
    grads = torch.ops.aten._flash_attention_backward(
        *(grad, q, k, v, out, lse, bounds, bounds, longest, longest, 0.0, True, unused, unused),
        scale=scale,
        window_size_left=-1 if window is None else window - 1,
        window_size_right=0,
    )
    dq, dk, dv = (x.view(*shape[:3], -1)[..., : shape[3]] for x, shape in zip(grads, shapes, strict=True))
    return dq, dk, dv


def _flash_decode(
    q: Tensor, k: Tensor, v: Tensor, length: Tensor, positions: Tensor | None, scale: float, window: int | None
) -> Tensor:
    """One query a sequence against the slots that it sees, whose bounds stay on the GPU.

    In a ring those may wrap around its end. The kernel then attends to the two pieces separately, the second of them
    mostly empty, and the results are weighted by their sums of exponentials.
    """
    B, capacity, width = q.shape[0], k.shape[1], v.shape[3]
    reach = _reach(length, positions, window).expand(B)
    first = (length - reach) % capacity
    before_end = torch.minimum(reach + 1, capacity - first)
    starts, counts = (first, torch.zeros_like(first)), (before_end, reach + 1 - before_end)
    pieces = 1 if window is None else 2
    q, k, v = _flash_layout(q, k, v)
    base = torch.arange(B, device=q.device) * capacity
    ends = torch.full((1,), B * capacity, device=q.device)  # the kernel reads starts and counts, but wants n + 1 bounds
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        *(q.flatten(0, 1).repeat(pieces, 1, 1), k.flatten(0, 1), v.flatten(0, 1)),
        torch.arange(pieces * B + 1, dtype=torch.int32, device=q.device),
        torch.cat((*(base + start for start in starts[:pieces]), ends)).int(),
        *(1, capacity, 0.0, False, False),
        scale=scale,
        seqused_k=torch.cat(counts[:pieces]).int(),
    )
    out = out[..., :width].unflatten(0, (pieces, B))  # [pieces, B, H, V]
    share = lse.t().unflatten(0, (pieces, B))  # [pieces, B, H]; +inf for an empty piece
    share = share.masked_fill(share == torch.inf, -torch.inf).softmax(0)
    attended: Tensor = out[0] if pieces == 1 else (out * share[..., None]).sum(0).to(q.dtype)
    return attended[:, None]


_known_documents: list[tuple[weakref.ref[Tensor], int, tuple[Tensor, int]]] = []


def _documents(positions: Tensor) -> tuple[Tensor, int]:
    """Bounds `[n + 1]` int32 of the documents in the flattened batch, and the length of the longest.

    The answer is kept for the next layer and the backward pass, which ask with the same tensor.
    """
    for tensor, version, documents in _known_documents:
        if tensor() is positions and positions._version == version:
            return documents
    starts = positions == 0
    starts[:, 0] = True  # rows are separate, whatever index they begin with
    end = torch.tensor([positions.numel()], device=positions.device)
    bounds = torch.cat((starts.flatten().nonzero().flatten(), end)).int()
    documents = bounds, int(bounds.diff().max())
    if not positions.is_inference():  # those have no version to tell a change by
        _known_documents[:] = [(weakref.ref(positions), positions._version, documents)]
    return documents
