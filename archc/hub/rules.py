"""What transformers puts for a key that is null or "auto", under the text that the families' tables show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt

Fact = bool | int | float | str | tuple[str, ...] | None  # a tuple is the word of every layer, in order
Facts = Mapping[str, Fact]

# Facts that a config.json can put in other words, and that the names and shapes of the tensors show by themselves:
# periods of few layers, the kind of each layer, a rank given as "auto". And the context, a promise about training.
REPHRASED = frozenset({"context", "mamba.dt_rank", "attn.every", "attn.offset", "moe.every", "moe.offset", "layers"})


def whole(facts: Facts, path: str) -> int:
    """A fact that is a size."""
    value = facts[path]
    assert isinstance(value, int), path
    return value


def kinds_of(facts: Facts) -> set[str]:
    """The kinds in listed layers, those of a shared module and itself too."""
    layers = facts["layers"]
    assert isinstance(layers, tuple)
    words = {part for word in set(layers) for part in word.split(" <- ")}
    return words | (set(str(facts["share.layer"]).split(" + ")) if "share" in words else set())


RULES: dict[str, Callable[[Facts], Fact]] = {
    "none": lambda facts: None,
    "attn.n_heads": lambda facts: facts["attn.n_heads"],
    "d_model // attn.n_heads": lambda facts: whole(facts, "d_model") // whole(facts, "attn.n_heads"),
    "ceil(d_model / 16)": lambda facts: -(-whole(facts, "d_model") // 16),
    "2 * d_model": lambda facts: 2 * whole(facts, "d_model"),
    "4 * d_model": lambda facts: 4 * whole(facts, "d_model"),
    "2 * d_model // attn.n_heads": lambda facts: 2 * whole(facts, "d_model") // whole(facts, "attn.n_heads"),
    "1 / sqrt(attn.d_head / 2)": lambda facts: 1 / sqrt(whole(facts, "attn.d_head") / 2),
    "expand * d_model // n_heads": lambda facts: (
        whole(facts, "mamba2.expand") * whole(facts, "d_model") // whole(facts, "mamba2.n_heads")
    ),
    "mamba.expand * d_model": lambda facts: whole(facts, "mamba.expand") * whole(facts, "d_model"),
}
