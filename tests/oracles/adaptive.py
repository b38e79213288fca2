"""Adaptive softmax with tied weights, one token at a time.

Grave et al. 2017, arXiv:1609.04309, section 4; Baevski & Auli 2019, arXiv:1809.10853, section 3: p(word) is its share
of the first softmax, or the share of its cluster there times its own within the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor


def embedded(w: Mapping[str, Tensor], token: int, cutoffs: tuple[int, ...]) -> Tensor:
    """The vector of one word."""
    if "embed.proj_0" not in w:
        return w["embed.weight"][token]
    cluster = sum(token >= cut for cut in cutoffs)
    table = w["embed.weight"] if cluster == 0 else w[f"embed.tail_{cluster}"]
    return w[f"embed.proj_{cluster}"] @ table[token - (0, *cutoffs)[cluster]]


def log_probabilities(w: Mapping[str, Tensor], h: Tensor, cutoffs: tuple[int, ...]) -> Tensor:
    """Of every word, behind the state h `[d]` of one token."""
    tied = "embed.proj_0" in w
    ends = (0, *cutoffs, len(w["lm_head.bias"]))
    scores: list[Tensor] = []
    for i, (start, end) in enumerate(pairwise(ends)):
        if tied:
            table = w["embed.weight"] if i == 0 else w[f"embed.tail_{i}"]
            x = w["lm_head.proj"] @ h if i == 0 else w[f"embed.proj_{i}"].T @ h
        else:
            table, x = w["embed.weight"][start:end], h
        scores.append(table @ x + w["lm_head.bias"][start:end])
        if i == 0:
            clusters = w["lm_head.clusters"] @ x + w["lm_head.cluster_bias"]
    whole = torch.cat([scores[0], clusters]).exp().sum()
    shares = [scores[0].exp() / whole]
    for cluster, within in zip(clusters, scores[1:], strict=True):
        shares.append(cluster.exp() / whole * within.exp() / within.exp().sum())
    return torch.cat(shares).log()
