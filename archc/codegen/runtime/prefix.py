"""Learned tokens in front of every document (Hymba's meta tokens, arXiv:2411.13676).

Layers see them as the first tokens of each document; embeddings and logits are of the document's own tokens alone.
"""

import torch
from torch import Tensor

from .cache import Cache


class Prefix:
    """Where the learned tokens stand in one call of the model.

    `positions` are those of the longer stream that the layers see, `n_tokens` how many more tokens it has by this call.
    A cache that has seen a token has seen the learned ones. Raises ValueError for documents that begin behind it.
    """

    def __init__(self, size: int, tokens: Tensor, positions: Tensor | None, cache: Cache | None) -> None:
        self._size, self._begun = size, cache is not None and cache.seen > 0
        self._starts: Tensor | None = None
        batch, length = tokens.shape
        self.positions = positions
        self.n_tokens = length if self._begun else length + size
        if positions is not None and cache is not None:
            raise ValueError("with a cache, learned tokens stand in front of one document: give no positions")
        if cache is not None:
            self.positions = cache.positions(batch, self.n_tokens)
        elif positions is not None:
            self._packed(positions)

    def _packed(self, positions: Tensor) -> None:
        """Make room in front of every document; rows with fewer documents end in tokens that nobody reads."""
        starts = positions == 0
        starts[:, 0] = True  # rows are separate, whatever index they begin with
        document = starts.cumsum(1)
        self.n_tokens = positions.shape[1] + self._size * int(document.max())
        place = torch.arange(positions.shape[1], device=positions.device) + self._size * document
        row, first = starts.nonzero().unbind(1)
        front = place[row, first][:, None] - self._size + torch.arange(self._size, device=positions.device)
        longer = positions.new_zeros(len(positions), self.n_tokens)
        longer.scatter_(1, place, positions + self._size)
        longer[row[:, None], front] = torch.arange(self._size, device=positions.device)
        self._starts, self._place, self._row, self._front = starts, place, row, front
        self.positions = longer

    def before(self, h: Tensor, prefix: Tensor) -> Tensor:
        """h `[B, T, d]` with the learned `prefix` `[size, d]` in front of each document."""
        if self._begun:
            return h
        learned = prefix.to(h.dtype)
        if self._starts is None:
            return torch.cat((learned.expand(len(h), -1, -1), h), 1)
        index = self._place[..., None].expand_as(h)
        longer = h.new_zeros(len(h), self.n_tokens, h.shape[2]).scatter(1, index, h)
        return longer.index_put((self._row[:, None], self._front), learned)

    def without(self, h: Tensor) -> Tensor:
        """h of the documents' own tokens."""
        if self._begun:
            return h
        if self._starts is None:
            return h[:, self._size :]
        return h.gather(1, self._place[..., None].expand(-1, -1, h.shape[2]))
