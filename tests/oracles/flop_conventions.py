"""Training FLOPs as three projects count them, derived again from the sizes of a model alone: no graph, no archc."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """A model by the numbers of its configuration; counts of layers by what they hold."""

    d: int
    vocab: int
    n_attention: int = 0
    heads: int = 0
    kv_heads: int = 0
    d_head: int = 0
    n_dense: int = 0
    ff: int = 0
    matrices: int = 3  # of a channel mixer: 3 gated, 2 not
    n_sparse: int = 0
    experts: int = 0
    top_k: int = 0
    n_mamba2: int = 0
    mamba_heads: int = 0
    d_state: int = 0
    groups: int = 1
    tied: bool = False

    @property
    def projections(self) -> int:
        """Parameters of the four projections of one attention."""
        return self.d * self.d_head * 2 * (self.heads + self.kv_heads)

    @property
    def channel_mixer(self) -> int:
        return self.matrices * self.d * self.ff


def megatron(s: Sizes, tokens: int) -> int:
    """Per token: twice every matrix it meets; half a square of scores and values; 7 for each element of state."""
    d_inner = 2 * s.d
    mamba = 2 * s.d * (2 * d_inner + 2 * s.groups * s.d_state + s.mamba_heads) + 2 * d_inner * s.d
    mamba += 7 * d_inner * s.d_state
    attention = 2 * s.projections + 2 * tokens * s.heads * s.d_head
    mixers = 2 * s.channel_mixer * (s.n_dense + s.top_k * s.n_sparse)
    per_token = s.n_mamba2 * mamba + s.n_attention * attention + mixers + 2 * s.d * s.vocab
    return 3 * tokens * per_token


def torchtitan(s: Sizes, active: int, tokens: int) -> int:
    """`active` parameters, embedding and all; an untied embedding multiplies nothing."""
    multiplied = active if s.tied else active - s.vocab * s.d
    return tokens * (6 * multiplied + 6 * s.n_attention * s.heads * 2 * s.d_head * tokens)


def palm(s: Sizes, active: int, tokens: int) -> int:
    return tokens * (6 * active + 12 * s.n_attention * s.heads * s.d_head * tokens)
