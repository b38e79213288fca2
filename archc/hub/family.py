"""What a checkpoint family is: its tensors beside ours, and its config.json beside our fields. Rows are data.

A fact is what a field of a spec says (`attn.n_heads`, `norm.eps`), under the name that `facts` gives it. Every row is
read in both directions, so that whatever a family says stands in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from archc.hub.rules import RULES, Facts
from archc.hub.table import pairs, rows

Type = Literal["int", "index", "float", "bool"]


@dataclass(frozen=True)
class Key:
    """A key of config.json that says what fields of ours say.

    `absent` is transformers' default. `null` names the rule for a null or "auto"; with `fixed` the key can say no more.
    """

    name: str
    ours: tuple[str, ...]
    type: Type
    absent: object
    null: str
    fixed: bool

    @classmethod
    def read(cls, name: str, ours: str, type_: str, absent: str, null: str) -> Key:
        types: dict[str, Type] = {"int": "int", "index": "index", "float": "float", "bool": "bool"}
        rule = null.removeprefix("only ")
        if rule and rule not in RULES:
            raise ValueError(f"{name}: there is no rule {rule!r}")
        return cls(name, tuple(ours.split(", ")), types[type_], json.loads(absent), rule, rule != null)


@dataclass(frozen=True)
class Only:
    """A key that changes the function and is supported with one value; `written` if transformers itself has the key."""

    name: str
    value: object
    written: bool
    why: str


def no_limit(facts: Facts) -> str | None:
    """For families that take every combination of values."""
    return None


def settled(facts: Facts) -> Facts:
    """For families whose keys mean what they say."""
    return facts


@dataclass(frozen=True, kw_only=True)
class Family:
    """A checkpoint family of transformers.

    `layers` are the kinds of a layer's sublayers; where there are two for one, the second stands at every
    `KIND.every`-th layer from `KIND.offset` on, and the first elsewhere. `always` holds what all of the family have.
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
    settle: Callable[[Facts], Facts]
    derive: Callable[[Facts], Facts]

    @property
    def head(self) -> str:
        """Their name of the head's weight, which the file of a tied model may hold or not."""
        return dict(self.tensors)["lm_head.weight"]

    def key_of(self, path: str) -> str:
        """Their key for a fact of ours."""
        return next((key.name for key in self.keys if path in key.ours), path)


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
    settle: Callable[[Facts], Facts] = settled,
    derive: Callable[[Facts], Facts] = settled,
) -> Family:
    """A family from its tables.

        tensors   our tensor, theirs
        keys      their key, our fields, type, default, meaning of null or "auto" (`only`: the key can say nothing else)
        always    our field, JSON value
        only      their key, JSON value, `written` or `read`, why
        inert     their key, why it does not change the function
        aliases   another name of a key or of a dictionary of keys, the name used here

    `limit` says why transformers refuses or misreads these facts ("KEY: reason"), or nothing. `settle` takes facts as
    read from a config.json and gives them as a graph would; `derive` takes a graph's and adds what a config.json has to
    say besides.
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
        settle=settle,
        derive=derive,
    )
