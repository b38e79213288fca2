"""Which family a graph belongs to, by its structure alone, and the config.json that says so.

A family applies if each of the graph's facts is said by one of its keys, is what all of the family have, or is the
default that nobody needs to say; and if every tensor has exactly one name there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from archc.hub.facts import GraphFacts, IrregularError, facts_of
from archc.hub.family import Family
from archc.hub.rules import REPHRASED, RULES, Fact
from archc.ir.graph import Graph


@dataclass(frozen=True)
class Match:
    """A family and what it says of a graph: its config.json, and the rows for the tensors that there are.

    `alike` are further families that say all of it under the same names, and what their config.json says otherwise.
    """

    family: Family
    config: Mapping[str, object]
    rows: tuple[tuple[str, str], ...]
    alike: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def rephrased(self) -> tuple[str, ...]:
        """Keys that another config.json of the same function may say in other words."""
        keys = (key for key in self.family.keys if REPHRASED.issuperset(key.ours))
        return tuple(sorted(key.name for key in keys if key.name in self.config))


def best(graph: Graph, families: tuple[Family, ...]) -> Match | None:
    """The first of `families` that can say all of `graph`, or None."""
    try:
        facts = facts_of(graph)
    except IrregularError:
        return None
    found = [match for family in families if (match := matched(facts, family)) is not None]
    if not found:
        return None
    first, *others = found
    alike = {
        other.family.name: {key: value for key, value in other.config.items() if first.config.get(key, ...) != value}
        for other in others
        if other.rows == first.rows
    }
    return replace(first, alike=alike)


def matched(facts: GraphFacts, family: Family) -> Match | None:
    """What `family` says of these facts, if it can say all of them."""
    placed = placements(facts, family)
    rows = tensor_rows(facts, family)
    if placed is None or rows is None:
        return None
    values = family.derive({**facts.values, **placed})
    config = _config(values, family)
    if config is None or family.limit(values) is not None:
        return None
    said = {path for key in family.keys for path in key.ours}
    for path, value in values.items():
        if path in family.always:
            if value != family.always[path]:
                return None
        elif path not in said and value != facts.defaults.get(path):
            return None
    return Match(family, config, rows)


def placements(facts: GraphFacts, family: Family) -> dict[str, int] | None:
    """`KIND.every` and `KIND.offset` of kinds that share a place with another; None if the layers are not as there."""
    if any(len(kinds) != len(family.layers) for kinds in facts.layers):
        return None
    placed: dict[str, int] = {}
    for i, alternatives in enumerate(family.layers):
        kinds = [layer[i] for layer in facts.layers]
        if not set(kinds) <= set(alternatives):
            return None
        if len(alternatives) == 2:
            period = periodic([kind == alternatives[1] for kind in kinds])
            if period is None:
                return None
            placed[f"{alternatives[1]}.every"], placed[f"{alternatives[1]}.offset"] = period
    return placed


def periodic(at: list[bool]) -> tuple[int, int] | None:
    """(period, offset) with `at[i] == (i % period == offset)`, offset < period; None if there is none.

    One place alone gets the number of layers as its period, and no place at all a period that never comes around.
    """
    places = [i for i, here in enumerate(at) if here]
    if not places:
        return len(at) + 1, len(at)
    period = places[1] - places[0] if len(places) > 1 else len(at)
    offset = places[0]
    if offset >= period or at != [i % period == offset for i in range(len(at))]:
        return None
    return period, offset


def tensor_rows(facts: GraphFacts, family: Family) -> tuple[tuple[str, str], ...] | None:
    """The family's rows for the tensors of a graph; None unless every tensor has a name of its own."""
    rows = [(ours, theirs) for ours, theirs in family.tensors if ours in facts.tensors]
    if len(rows) != len(facts.tensors) or len({theirs for _, theirs in rows}) != len(rows):
        return None
    if facts.values["tied"]:  # some files of a tied model hold the embedding a second time
        rows.append((rows[0][0], family.head))
    return tuple(rows)


def _config(values: Mapping[str, Fact], family: Family) -> dict[str, object] | None:
    """The config.json, or None if one of its keys had to say two things or what it cannot say."""
    config: dict[str, object] = {"model_type": family.name, "architectures": [family.architecture]}
    for key in family.keys:
        said = {values[path] for path in key.ours if path in values}
        if not said or (said == {None} and key.null != "none"):
            continue  # a layer that this model lacks, or a context that the spec leaves open
        if len(said) > 1:
            return None
        (value,) = said
        if key.fixed and value != RULES[key.null](values):
            return None
        _put(config, key.name, value)
    for only in family.only:
        if only.written:
            _put(config, only.name, only.value)
    return config


def _put(config: dict[str, object], name: str, value: object) -> None:
    """Set `outer.inner` of a nested dictionary."""
    outer, _, inner = name.rpartition(".")
    target = config.setdefault(outer, {}) if outer else config
    assert isinstance(target, dict)
    target[inner] = value
