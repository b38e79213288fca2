"""Adaptive embedding and softmax: rare words have narrower vectors, and share a cluster of the softmax.

Sources: softmax, Grave et al. 2017, arXiv:1609.04309; input and tying, Baevski & Auli 2019, arXiv:1809.10853.

The vocabulary is sorted by frequency and cut into clusters, each `div` times narrower than the one before. The head is
tied to the embedding. It gives log-probabilities, which are logits: those of a cluster behind the first are those of
the cluster among the frequent words plus those within it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import promoted


class Named(nn.Module):
    """A module that gives its parameters by name."""

    def add(self, name: str, *shape: int) -> None:
        """A new parameter."""
        self.register_parameter(name, nn.Parameter(torch.empty(shape)))

    def __getitem__(self, name: str) -> Tensor:
        parameter: Tensor = getattr(self, name)
        return parameter


class AdaptiveEmbedding(Named):
    """Tables `weight [V_0, D]`, `tail_i [V_i, D / div**i]`, and `proj_i [D, D / div**i]` from these to the model."""

    weight: Tensor

    def __init__(self, vocab: int, width: int, *, cutoffs: tuple[int, ...], div: int) -> None:
        super().__init__()
        self.ends = (*cutoffs, vocab)
        for i, (start, end) in enumerate(zip((0, *cutoffs), self.ends, strict=True)):
            self.add("weight" if i == 0 else f"tail_{i}", end - start, width // div**i)
            self.add(f"proj_{i}", width, width // div**i)

    def tables(self) -> list[Tensor]:
        """The words of each cluster."""
        return [self["weight" if i == 0 else f"tail_{i}"] for i in range(len(self.ends))]

    def projections(self) -> list[Tensor]:
        """One for each cluster."""
        return [self[f"proj_{i}"] for i in range(len(self.ends))]

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, T]` to `[B, T, D]`: each token's row of its own table, zeros of the others, one product."""
        rows, start = [], 0
        for end, table in zip(self.ends, self.tables(), strict=True):
            inside = (tokens >= start) & (tokens < end)
            rows.append(F.embedding((tokens - start).clamp(0, end - start - 1), table) * inside[..., None])
            start = end
        return F.linear(torch.cat(rows, -1), torch.cat(self.projections(), -1))


class AdaptiveHead(Named):
    """What the head does not share: `clusters [n, D]`, biases of clusters `[n]` and words `[V]`, `proj [D, D]`."""

    bias: Tensor

    def __init__(self, vocab: int, width: int, *, cutoffs: tuple[int, ...], project: bool) -> None:
        super().__init__()
        self.sizes = [end - start for start, end in zip((0, *cutoffs), (*cutoffs, vocab), strict=True)]
        self.add("clusters", len(cutoffs), width)
        self.add("cluster_bias", len(cutoffs))
        self.add("bias", vocab)
        if project:
            self.add("proj", width, width)

    def forward(self, h: Tensor, embed: nn.Module) -> Tensor:
        """Log-probabilities `[B, T, V]` in at least float32."""
        if isinstance(embed, AdaptiveEmbedding):
            tables = embed.tables()
            parts = [F.linear(h, self["proj"]), *(h @ projection for projection in embed.projections()[1:])]
        else:
            assert isinstance(embed, nn.Embedding)
            tables = list(torch.split(embed.weight, self.sizes))
            parts = [h] * len(tables)
        biases = list(torch.split(self.bias, self.sizes))
        words = torch.cat([tables[0], self["clusters"]]), torch.cat([biases[0], self["cluster_bias"]])
        first = F.log_softmax(promoted(F.linear(parts[0], *words)), -1)
        frequent, clusters = torch.split(first, [self.sizes[0], first.shape[-1] - self.sizes[0]], -1)
        logits = [frequent]
        for i, (part, table, bias) in enumerate(zip(parts[1:], tables[1:], biases[1:], strict=True)):
            logits.append(clusters[..., i : i + 1] + F.log_softmax(promoted(F.linear(part, table, bias)), -1))
        return torch.cat(logits, -1)
