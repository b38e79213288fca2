"""What transformers puts for a key that is null or "auto", under the text that the families' tables show."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Fact = bool | int | float | str | None
Facts = Mapping[str, Fact]

# Facts that a config.json can put in other words, and that the names and shapes of the tensors show by themselves:
# periods of few layers, a rank given as "auto". And the context, which is a promise about training.
REPHRASED = frozenset({"context", "mamba.dt_rank", "attn.every", "attn.offset", "moe.every", "moe.offset"})


def whole(facts: Facts, path: str) -> int:
    """A fact that is a size."""
    value = facts[path]
    assert isinstance(value, int), path
    return value


RULES: dict[str, Callable[[Facts], Fact]] = {
    "none": lambda facts: None,
    "attn.n_heads": lambda facts: facts["attn.n_heads"],
    "d_model // attn.n_heads": lambda facts: whole(facts, "d_model") // whole(facts, "attn.n_heads"),
    "ceil(d_model / 16)": lambda facts: -(-whole(facts, "d_model") // 16),
    "mamba.expand * d_model": lambda facts: whole(facts, "mamba.expand") * whole(facts, "d_model"),
}
