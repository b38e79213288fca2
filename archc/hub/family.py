"""What a checkpoint family is: its tensors beside ours, and its config.json beside our fields. Rows are data.

A fact is what a field of a spec says (`attn.n_heads`, `norm.eps`), under the name that `facts` gives it. Every row is read
in both directions, so that a fact of a family stands in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from archc.hub.table import pairs, rows

Fact = bool | int | float | str | None
Facts = Mapping[str, Fact]
Type = Literal["int", "index", "float", "bool"]


def _n_heads(facts: Facts) -> Fact:
    return facts["attn.n_heads"]


def _head_width(facts: Facts) -> Fact:
    return _whole(facts, "d_model") // _whole(facts, "attn.n_heads")


def _dt_rank(facts: Facts) -> Fact:
    return -(-_whole(facts, "d_model") // 16)


def _d_inner(facts: Facts) -> Fact:
    return _whole(facts, "mamba.expand") * _whole(facts, "d_model")


def _whole(facts: Facts, path: str) -> int:
    value = facts[path]
    assert isinstance(value, int)
    return value


# What transformers puts for a key that is null or "auto"; the text is what the tables of the families show.
RULES: dict[str, Callable[[Facts], Fact]] = {
    "none": lambda facts: None,
    "attn.n_heads": _n_heads,
    "d_model // attn.n_heads": _head_width,
    "ceil(d_model / 16)": _dt_rank,
    "mamba.expand * d_model": _d_inner,
}


@dataclass(frozen=True)
class Key:
    """A key of config.json that says what fields of ours say.

    `absent` is transformers' default. `null` is the rule for a null or "auto"; with `fixed` the key can say nothing else.
    """

    name: str
    ours: tuple[str, ...]
    type: Type
    absent: object
    null: str
    fixed: bool

    @classmethod
    def read(cls, name: str, ours: str, type_: str, absent: str, null: str) -> Key:
        fixed = null.startswith("only ")
        null = null.removeprefix("only ")
        if null and null not in RULES:
            raise ValueError(f"{name}: there is no rule {null!r}")
        types: dict[str, Type] = {"int": "int", "index": "index", "float": "float", "bool": "bool"}
        return cls(name, tuple(ours.split(", ")), types[type_], json.loads(absent), null, fixed)


@dataclass(frozen=True)
class Only:
    """A key that changes the function and is supported with one value; `written` if transformers itself has the key."""

    name: str
    value: object
    written: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Family:
    """A checkpoint family of transformers.

    `layers` are the kinds of a layer's sublayers; where there are two for one, the second stands at every `KIND.every`-th
    layer from `KIND.offset` on, and the first elsewhere. `always` is what every model of the family has without a key.
    """

    name: str
    title: str
    source: str
    architecture: str
    layers: tuple[tuple[str, ...], ...]
    keys: tuple[Key, ...]
    only: tuple[Only, ...]
    inert: Mapping[str, str]
    aliases: Mapping[str, str]
    always: Facts
    tensors: tuple[tuple[str, str], ...]
    limit: Callable[[Facts], str | None]

    @property
    def head(self) -> str:
        """Their name of the head's weight, which a tied file may hold or not."""
        return dict(self.tensors)["lm_head.weight"]


def no_limit(facts: Facts) -> str | None:
    """For families that take every combination of values."""
    return None


def family(
    *,
    name: str,
    title: str,
    source: str,
    architecture: str,
    layers: tuple[tuple[str, ...], ...],
    tensors: str,
    keys: str,
    always: str = "",
    only: str = "",
    inert: str = "",
    aliases: str = "",
    limit: Callable[[Facts], str | None] = no_limit,
) -> Family:
    """A family from its tables.

    tensors: ours, theirs.    keys: theirs, ours, type, default, meaning of null.    always: our field, JSON value.
    only: their key, JSON value, `written` or `read`, why.    inert: their key, why.    aliases: their key, its other name.
    `limit` names the first of its keys that cannot say these facts, and says why; or None.
    """
    return Family(
        name=name,
        title=title,
        source=source,
        architecture=architecture,
        layers=layers,
        keys=tuple(Key.read(*row) for row in rows(keys, 5)),
        only=tuple(Only(key, json.loads(v), written == "written", why) for key, v, written, why in rows(only, 4)),
        inert=dict(pairs(inert)),
        aliases=dict(pairs(aliases)),
        always={path: json.loads(value) for path, value in pairs(always)},
        tensors=pairs(tensors),
        limit=limit,
    )
