"""The gated delta rule over chunks of tokens, forward and backward, as matrix products (arXiv:2412.06464, section 3).

For one head and a chunk of L tokens that begins with state S: g are the running sums of the log decays, and
D[i, j] = exp(g[i] - g[j]) for j <= i. Each token writes along its key what its value adds to what the state holds:

    A = tril(diag(beta) k k^T * D, -1)                 what tokens of the chunk hold for one another
    w = (I + A)^-1 (beta v - beta exp(g) k S)          what each one writes
    y = exp(g) q S + tril(q k^T * D) w
    S' = exp(g[L]) S + sum_j exp(g[L] - g[j]) k[j] w[j]^T

Where a document begins, D, exp(g) and exp(g[L] - g[j]) are 0 across its border. Shapes here: q, k `[B, H, T, K]`;
v `[B, H, T, V]`; decay, beta `[B, H, T]`; states `[B, chunks, H, K, V]`, those before each chunk.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Chunk(NamedTuple):
    """What both passes derive of a chunk; `inside` is D, `since` exp(g), `until` exp(g[L] - g), `whole` exp(g[L])."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    inside: Tensor
    since: Tensor
    until: Tensor
    whole: Tensor
    keys: Tensor  # k k^T
    scores: Tensor  # q k^T

    @property
    def held(self) -> Tensor:
        """I + A, unit lower triangular."""
        held = (self.keys * self.inside * self.beta[..., None]).tril(-1)
        held.diagonal(dim1=-2, dim2=-1).fill_(1)
        return held

    @property
    def seen(self) -> Tensor:
        """tril(q k^T * D)."""
        return self.scores * self.inside


def forward(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, starts: Tensor | None, state: Tensor, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y `[B, H, T, V]`, the final state and the states before each chunk; `starts` `[B, T]` begin documents."""
    ys, states = [], []
    for now in _chunks(q.shape[2], length):
        states.append(state)
        part = _chunk(q, k, v, decay, beta, starts, now)
        written = _written(part, part.k @ state)
        ys.append((part.q @ state) * part.since[..., None] + part.seen @ written)
        state = state * part.whole[..., None, None] + (part.k * part.until[..., None]).mT @ written
    return torch.cat(ys, 2), state, torch.stack(states, 1)


def backward(
    grad_y: Tensor,
    grad_state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor,
    beta: Tensor,
    starts: Tensor | None,
    states: Tensor,
    length: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of q, k, v, decay, beta and the initial state."""
    grads: list[tuple[Tensor, ...]] = []
    for index, now in reversed(list(enumerate(_chunks(q.shape[2], length)))):
        part = _chunk(q, k, v, decay, beta, starts, now)
        *local, grad_state = _chunk_backward(part, states[:, index], grad_y[:, :, now], grad_state)
        grads.append(tuple(local))
    dq, dk, dv, dg, db = (torch.cat(parts[::-1], 2) for parts in zip(*grads, strict=True))
    return dq, dk, dv, dg, db, grad_state


def _chunk_backward(part: Chunk, state: Tensor, grad_y: Tensor, grad_next: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a chunk's q, k, v, decay and beta, and of the state before it."""
    q, k, v, beta, inside, since, until, whole, keys, scores = part
    recalled = k @ state
    written = _written(part, recalled)

    grad_written = part.seen.mT @ grad_y + (k * until[..., None]) @ grad_next
    raw = torch.linalg.solve_triangular(part.held.mT, grad_written, upper=True, unitriangular=True)
    grad_recalled = raw * -(beta * since)[..., None]
    grad_read = (grad_y @ written.mT) * inside
    grad_held = -(raw @ written.mT).tril(-1) * inside

    pairs = grad_held * beta[..., None]
    from_state, to_state = (grad_y @ state.mT) * since[..., None], (written @ grad_next.mT) * until[..., None]
    grad_q = from_state + grad_read @ k
    grad_k = grad_recalled @ state.mT + to_state + pairs @ k + pairs.mT @ k + grad_read.mT @ q
    grad_beta = (raw * (v - recalled * since[..., None])).sum(-1) + (grad_held * keys).sum(-1)

    # Running sums enter as g[i], as g[i] - g[j] and as g[L] - g[j].
    differences = pairs * keys + grad_read * scores
    fading = (to_state * k).sum(-1)
    grad_sums = (grad_recalled * recalled).sum(-1) + (from_state * q).sum(-1)
    grad_sums = grad_sums + differences.sum(-1) - differences.sum(-2) - fading
    last = fading.sum(-1) + (state * grad_next).sum((-1, -2)) * whole
    grad_sums = torch.cat((grad_sums[..., :-1], (grad_sums[..., -1] + last)[..., None]), -1)
    grad_decay = grad_sums.flip(-1).cumsum(-1).flip(-1)

    grad_state = grad_next * whole[..., None, None] + k.mT @ grad_recalled + (q * since[..., None]).mT @ grad_y
    return grad_q, grad_k, raw * beta[..., None], grad_decay, grad_beta, grad_state


def step(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, starts: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token `[B, H, .]` of the recurrence: y `[B, H, V]` and the state behind it."""
    factor = decay.exp() if starts is None else decay.exp() * ~starts
    state = state * factor[..., None, None]
    written = beta[..., None] * (v - torch.einsum("bhk,bhkv->bhv", k, state))
    state = state + k[..., None] * written[..., None, :]
    return torch.einsum("bhk,bhkv->bhv", q, state), state


def _chunks(tokens: int, length: int) -> list[slice]:
    return [slice(start, min(start + length, tokens)) for start in range(0, tokens, length)]


def _chunk(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, starts: Tensor | None, now: slice) -> Chunk:
    q, k, v, beta = q[:, :, now], k[:, :, now], v[:, :, now], beta[:, :, now]
    sums = decay[:, :, now].cumsum(-1)
    differences = sums[..., :, None] - sums[..., None, :]
    lower = torch.ones(sums.shape[-1], sums.shape[-1], dtype=torch.bool, device=q.device).tril()
    if starts is None:
        inside = differences.masked_fill(~lower, -torch.inf).exp()
        since, until, whole = sums.exp(), (sums[..., -1:] - sums).exp(), sums[..., -1].exp()
    else:
        document = starts[:, None, now].cumsum(-1)  # 0 continues the state
        same = lower & (document[..., :, None] == document[..., None, :])
        inside = differences.masked_fill(~same, -torch.inf).exp()
        since = sums.masked_fill(document > 0, -torch.inf).exp()
        last = document[..., -1:]
        until = (sums[..., -1:] - sums).masked_fill(document < last, -torch.inf).exp()
        whole = since[..., -1]
    return Chunk(q, k, v, beta, inside, since, until, whole, k @ k.mT, q @ k.mT)


def _written(part: Chunk, recalled: Tensor) -> Tensor:
    """What each token writes along its key, `[B, H, L, V]`; `recalled` is k S."""
    raw = part.beta[..., None] * (part.v - recalled * part.since[..., None])
    written: Tensor = torch.linalg.solve_triangular(part.held, raw, upper=False, unitriangular=True)
    return written
