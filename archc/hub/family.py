"""What a checkpoint family is: its tensors beside ours, and its config.json beside our fields. Rows are data.

A fact is what a field of a spec says (`attn.n_heads`, `norm.eps`), under the name that `facts` gives it. Every row is
read in both directions, so that whatever a family says stands in one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from archc.hub.pattern import Pattern
from archc.hub.rules import RULES, Fact, Facts
from archc.hub.table import pairs, rows

Type = Literal["int", "index", "float", "bool", "is", "among"]
Config = Mapping[str, object]
CONFIG_FILE, WEIGHTS = "config.json", "model.safetensors"  # of transformers


@dataclass(frozen=True)
class Key:
    """A key of config.json that says what fields of ours say.

    `absent` is transformers' default. `null` names the rule for a null or "auto"; with `fixed` the key can say no more.
    `words` are the values that fields may have: the one that true stands for, or those that the key has itself.
    """

    name: str
    ours: tuple[str, ...]
    type: Type
    words: tuple[str, ...]
    absent: object
    null: str
    fixed: bool

    @classmethod
    def read(cls, name: str, ours: str, type_: str, absent: str, null: str) -> Key:
        types: dict[str, Type] = {"int": "int", "index": "index", "float": "float", "bool": "bool"}
        types |= {"is": "is", "among": "among"}
        kind, _, words = type_.partition(" ")
        rule = null.removeprefix("only ")
        if rule and rule not in RULES:
            raise ValueError(f"{name}: there is no rule {rule!r}")
        paths = tuple(ours.split(", ")) if ours != "-" else ()
        said = tuple(words.split(", ")) if words else ()
        return cls(name, paths, types[kind], said, json.loads(absent), rule, rule != null)

    def can_say(self, value: Fact) -> bool:
        """Whether a fact is among those that it has words for."""
        return not self.words or value in self.words or (self.type == "is" and value is None)


@dataclass(frozen=True)
class Row:
    """A tensor of ours and theirs, in models of which the fact `when` is `value`; of all models where it is empty."""

    ours: str
    theirs: str
    when: str
    value: Fact

    @classmethod
    def read(cls, ours: str, theirs: str, condition: str) -> Row:
        when, _, value = condition.partition(" = ")
        return cls(ours, theirs, when, json.loads(value) if when else None)

    def applies(self, facts: Facts) -> bool:
        return not self.when or facts.get(self.when) == self.value


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


def said(config: Config) -> Config:
    """For families whose file has the keys of their tables as they are."""
    return config


@dataclass(frozen=True, kw_only=True)
class Family:
    """A checkpoint family, of transformers if it has an `architecture` there, else of the program that made it.

    `layers` are the kinds of a layer's sublayers; where there are two for one, the second stands at every
    `KIND.every`-th layer from `KIND.offset` on, and the first elsewhere. With a `pattern` they are listed one by one.
    `always` holds what all of the family have, `follows` the rules of what other facts decide there. `rephrased` are
    keys beside those of `rules.REPHRASED` that names and shapes of the tensors show by themselves.
    """

    name: str
    title: str
    source: str
    architecture: str
    layers: tuple[tuple[str, ...], ...]
    pattern: Pattern | None
    keys: tuple[Key, ...]
    only: tuple[Only, ...]
    inert: Mapping[str, str]
    aliases: Mapping[str, str]
    always: Facts
    follows: Mapping[str, str]
    tensors: tuple[Row, ...]
    limit: Callable[[Facts], str | None]
    settle: Callable[[Facts], Facts]
    derive: Callable[[Facts], Facts]
    write: Callable[[Config], Config]
    rephrased: tuple[str, ...]
    config_file: str
    weights: str

    @property
    def head(self) -> str:
        """Their name of the head's weight, which the file of a tied model may hold or not."""
        return next(row.theirs for row in self.tensors if row.ours == "lm_head.weight")

    @property
    def layer_text(self) -> str:
        """What a layer may be, for a message."""
        if self.pattern is not None:
            words = (("a channel mixer" if ours[0] == "{" else ours) for ours in self.pattern.words.values())
            return " or ".join(dict.fromkeys(words))
        places = ", by a period" if any(len(alternatives) > 1 for alternatives in self.layers) else ""
        return " + ".join(" or ".join(alternatives) for alternatives in self.layers) + places

    def key_of(self, path: str) -> str:
        """Their key for a fact of ours."""
        return next((key.name for key in self.keys if path in key.ours), path)


def family(
    *,
    name: str,
    title: str,
    source: str,
    architecture: str,
    layers: tuple[tuple[str, ...], ...] = (),
    pattern: Pattern | None = None,
    tensors: str,
    keys: str,
    always: str = "",
    follows: str = "",
    only: str = "",
    inert: str = "",
    aliases: str = "",
    limit: Callable[[Facts], str | None] = no_limit,
    settle: Callable[[Facts], Facts] = settled,
    derive: Callable[[Facts], Facts] = settled,
    write: Callable[[Config], Config] = said,
    rephrased: tuple[str, ...] = (),
    config_file: str = CONFIG_FILE,
    weights: str = WEIGHTS,
) -> Family:
    """A family from its tables.

        tensors   our tensor, theirs (as `runtime/hf_names.py` says, with {share} for a shared module's name), condition
        keys      their key, our fields, type, default, meaning of null or "auto" (`only`: the key can say nothing else)
        always    our field, JSON value
        follows   our field, rule
        only      their key, JSON value, `written` or `read`, why
        inert     their key, why it does not change the function
        aliases   another name of a key or of a dictionary of keys, the name used here

    `limit` says why transformers refuses or misreads these facts ("KEY: reason"), or nothing. `settle` takes facts as
    read from a config.json and gives them as a graph would; `derive` takes a graph's and adds what a config.json has to
    say besides. `write` makes a file's content of the keys of the tables. `rephrased`, `config_file` and `weights` are
    as in `runtime/hf_family.py`.
    """
    return Family(
        name=name,
        title=title,
        source=source,
        architecture=architecture,
        layers=layers,
        pattern=pattern,
        keys=tuple(Key.read(*row) for row in rows(keys, 5)),
        only=tuple(Only(key, json.loads(v), written == "written", why) for key, v, written, why in rows(only, 4)),
        inert=dict(pairs(inert)),
        aliases=dict(pairs(aliases)),
        always={path: json.loads(value) for path, value in pairs(always)},
        follows=dict(pairs(follows)),
        tensors=tuple(Row.read(*row) for row in rows(tensors, 3)),
        limit=limit,
        settle=settle,
        derive=derive,
        write=write,
        rephrased=rephrased,
        config_file=config_file,
        weights=weights,
    )
