"""The recurrence of Mamba-2 by chunks of matrix products, forward and backward (Dao & Gu 2024, arXiv:2405.21060).

    h[t] = exp(a[t]) h[t-1] + u[t] ⊗ B[t],    y[t] = h[t] C[t],    a <= 0

Within a chunk, token t reads what token s wrote through exp(a[s+1] + ... + a[t]). Those sums are differences of running
sums in float64, taken before the exponential and only where s <= t: nothing overflows, and nothing is lost where the
running sum is large. A chunk's state goes to the next; the states at the chunks' starts are saved, and backward derives
the rest of a chunk again. `chunk` bounds the memory, `[B, H, chunk, chunk]`.

Shapes: u, y `[B, T, H, P]`; a `[B, T, H]`; B, C `[B, T, G, N]`, head i reading group i // (H / G); positions `[B, T]`,
whose zeros reset the state; initial, final `[B, H, P, N]`; states `[B, chunks, H, P, N]`. Inside, heads lie as
`[G, R]` with R = H / G, so that what a group shares is one matrix product.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Decays(NamedTuple):
    """The decays of one chunk of L tokens, 0 wherever a document's start lies in between."""

    between: Tensor  # [B, G, R, L, L]: from what s wrote to what t reads, 0 for s > t
    into: Tensor  # [B, G, R, L]: from the chunk's initial state to what t reads
    out: Tensor  # [B, G, R, L]: from what s wrote to the chunk's final state
    through: Tensor  # [B, G, R]: from the initial to the final state


def forward(
    u: Tensor, a: Tensor, B: Tensor, C: Tensor, positions: Tensor | None, initial: Tensor | None, chunk: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, the final state and the states before each chunk."""
    batch, length, heads, width = u.shape
    groups, d_state = B.shape[2:]
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    states = u.new_empty(batch, -(-length // chunk), heads, width, d_state)
    h = u.new_zeros(batch, heads, width, d_state) if initial is None else initial.to(u.dtype, copy=True)
    h = h.reshape(batch, groups, -1, d_state)  # [B, G, R * P, N]
    for index in range(states.shape[1]):
        now = slice(index * chunk, (index + 1) * chunk)
        states[:, index] = h.view(states[:, index].shape)
        decays = _decays(a[:, now], positions, now, groups)
        u_now, B_now, C_now = _by_head(u[:, now], groups), B[:, now].transpose(1, 2), C[:, now].transpose(1, 2)
        scores = C_now @ B_now.mT  # [B, G, L, L]
        y_now = (decays.between * scores[:, :, None]) @ u_now
        y_now += decays.into[..., None] * _split(C_now @ h.mT, width)
        y[:, now] = _by_token(y_now)
        h = _decayed(h, decays.through) + _joined(decays.out[..., None] * u_now).mT @ B_now
    return y, h.view(batch, heads, width, d_state), states


def backward(
    grad_y: Tensor,
    grad_final: Tensor | None,
    u: Tensor,
    a: Tensor,
    B: Tensor,
    C: Tensor,
    positions: Tensor | None,
    states: Tensor,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, a, B, C and the initial state."""
    groups, d_state = B.shape[2:]
    width = u.shape[3]
    grad_u, grad_a, grad_B, grad_C = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (u, a, B, C))
    grad_h = torch.zeros_like(states[:, 0]) if grad_final is None else grad_final.to(u.dtype)
    grad_h = grad_h.reshape(u.shape[0], groups, -1, d_state)  # [B, G, R * P, N]
    for index in reversed(range(states.shape[1])):
        now = slice(index * chunk, (index + 1) * chunk)
        h = states[:, index].view(grad_h.shape)
        decays = _decays(a[:, now], positions, now, groups)
        u_now, B_now, C_now = _by_head(u[:, now], groups), B[:, now].transpose(1, 2), C[:, now].transpose(1, 2)
        dy = _by_head(grad_y[:, now], groups)
        mixed = decays.between * (C_now @ B_now.mT)[:, :, None]  # [B, G, R, L, L]
        grad_mixed = dy @ u_now.mT
        grad_scores = (grad_mixed * decays.between).sum(2)  # [B, G, L, L]
        # What the chunk's final state asks of what each token wrote, and what each token asks of the initial state.
        asked = decays.out[..., None] * _split(B_now @ grad_h.mT, width)  # [B, G, R, L, P]
        read = decays.into[..., None] * dy  # [B, G, R, L, P]
        read_states = read @ _heads(h, width)  # [B, G, R, L, N]
        written = _joined(decays.out[..., None] * u_now)
        grad_u[:, now] = _by_token(mixed.mT @ dy + asked)
        grad_B[:, now] = (grad_scores.mT @ C_now + written @ grad_h).transpose(1, 2)
        grad_C[:, now] = (grad_scores @ B_now + read_states.sum(2)).transpose(1, 2)
        # A decay is an exponential, so its gradient times itself is the gradient of the sum of a that it holds.
        grad_mixed *= mixed
        asked_sum = (asked * u_now).sum(-1, dtype=torch.float64)  # [B, G, R, L]
        grad_sums = grad_mixed.sum(-1, dtype=torch.float64) - grad_mixed.sum(-2, dtype=torch.float64) - asked_sum
        grad_sums += (read_states * C_now[:, :, None]).sum(-1, dtype=torch.float64)
        kept = _heads(grad_h * h, width).sum((-1, -2), dtype=torch.float64) * decays.through
        grad_sums[..., -1] += asked_sum.sum(-1) + kept
        grad_a[:, now] = grad_sums.flip(-1).cumsum(-1).flip(-1).permute(0, 3, 1, 2).flatten(2)
        grad_h = _decayed(grad_h, decays.through) + _joined(read).mT @ C_now
    return grad_u, grad_a, grad_B, grad_C, grad_h.view(states[:, 0].shape)


def step(u: Tensor, a: Tensor, B: Tensor, C: Tensor, positions: Tensor | None, state: Tensor) -> Tensor:
    """Advance `state` by one token in place; return y `[B, 1, H, P]`."""
    groups = B.shape[2]
    decay = a[:, 0].exp()
    if positions is not None:
        decay = decay * (positions[:, :1] != 0)
    h = state.to(u.dtype)
    h *= decay[..., None, None]
    by_group = h.view(h.shape[0], groups, -1, *h.shape[2:])  # [B, G, R, P, N]
    by_group += u.reshape(by_group.shape[:-1])[..., None] * B[:, 0, :, None, None]
    y = (by_group * C[:, 0, :, None, None]).sum(-1)
    state.copy_(h)
    return y.view(u.shape)


def step_flops(B: int, H: int, P: int, N: int) -> int:
    """One token of the recurrence: 5 operations per state, 3 per channel, 2 per head."""
    return B * H * (P * (5 * N + 3) + 2)


def forward_flops(B: int, T: int, H: int, P: int, G: int, N: int, chunk: int) -> int:
    """The matrix products of `forward`, a multiply-add being two; see `squares`."""
    return 2 * B * (squares(T, chunk) * (G * N + H * P) + 2 * T * H * P * N)


def backward_flops(B: int, T: int, H: int, P: int, G: int, N: int, chunk: int) -> int:
    """The matrix products of `backward`, those that derive the scores again among them."""
    return 2 * B * (squares(T, chunk) * (3 * G * N + 2 * H * P) + 4 * T * H * P * N)


def squares(T: int, chunk: int) -> int:
    """The sum of the squared chunk lengths: products run on whole chunks, above the diagonal too."""
    full, rest = divmod(T, chunk)
    return full * chunk**2 + rest**2


def _decays(a: Tensor, positions: Tensor | None, now: slice, groups: int) -> Decays:
    length = a.shape[1]
    sums = a.double().cumsum(1).transpose(1, 2).reshape(a.shape[0], groups, -1, length)  # [B, G, R, L]
    seen = torch.ones(length, length, dtype=torch.bool, device=a.device).tril()
    steps = (sums[..., :, None] - sums[..., None, :]).to(a.dtype)
    into, out, through = sums, sums[..., -1:] - sums, sums[..., -1]
    if positions is not None:
        document = (positions[:, now] == 0).cumsum(1)[:, None, None]  # [B, 1, 1, L]
        seen = seen & (document[..., :, None] == document[..., None, :])
        into = into.masked_fill(document != 0, -torch.inf)
        out = out.masked_fill(document != document[..., -1:], -torch.inf)
        through = through.masked_fill(document[..., -1] != 0, -torch.inf)
    between = steps.masked_fill_(~seen, -torch.inf).exp_()
    return Decays(between, *(x.to(a.dtype).exp() for x in (into, out, through)))


def _by_head(x: Tensor, groups: int) -> Tensor:
    """`[B, L, H, P]` as `[B, G, R, L, P]`."""
    batch, length, _, width = x.shape
    return x.reshape(batch, length, groups, -1, width).permute(0, 2, 3, 1, 4)


def _by_token(x: Tensor) -> Tensor:
    """`[B, G, R, L, P]` as `[B, L, H, P]`."""
    return x.permute(0, 3, 1, 2, 4).flatten(2, 3)


def _joined(x: Tensor) -> Tensor:
    """`[B, G, R, L, P]` as `[B, G, L, R * P]`."""
    return x.transpose(2, 3).flatten(3)


def _split(x: Tensor, width: int) -> Tensor:
    """`[B, G, L, R * P]` as `[B, G, R, L, P]`."""
    return x.view(*x.shape[:3], -1, width).transpose(2, 3)


def _heads(h: Tensor, width: int) -> Tensor:
    """`[B, G, R * P, N]` as `[B, G, R, P, N]`."""
    return h.view(*h.shape[:2], -1, width, h.shape[3])


def _decayed(h: Tensor, through: Tensor) -> Tensor:
    """A state `[B, G, R * P, N]` times the decay of each head `[B, G, R]`."""
    by_head = h.view(*through.shape, -1, h.shape[3])
    return (by_head * through[..., None, None]).flatten(2, 3)
