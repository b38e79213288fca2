"""Which family a graph belongs to, by its structure alone, and the config.json that says so.

A family applies if each of the graph's facts is said by one of its keys, is what all of the family have, or is the
default that nobody needs to say; and if every tensor has exactly one name there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from archc.hub.facts import GraphFacts, IrregularError, facts_of
from archc.hub.family import Family, Key
from archc.hub.rules import REPHRASED, RULES, Fact, Facts
from archc.ir.graph import Graph


@dataclass(frozen=True)
class Match:
    """A family and what it says of a graph: its config.json, and the rows for the tensors that there are.

    `others` are what further families say of it.
    """

    family: Family
    config: Mapping[str, object]
    rows: tuple[tuple[str, str], ...]
    uses: tuple[tuple[int, int], ...] = ()
    others: tuple[Match, ...] = ()

    @property
    def rephrased(self) -> tuple[str, ...]:
        """Keys that another config.json of the same function may say in other words."""
        keys = {key.name for key in self.family.keys if REPHRASED.issuperset(key.ours)}
        if self.family.pattern is not None and "layers" in REPHRASED:
            keys.add(self.family.pattern.key)
        return tuple(sorted({*(key for key in keys if _says(self.config, key)), *self.family.rephrased}))


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
    return replace(first, others=tuple(others))


def nearest(graph: Graph, families: tuple[Family, ...]) -> tuple[Family | None, tuple[tuple[str, str], ...]]:
    """The family that can say most of a graph that none can say, and (field, why) of the rest.

    No family at all if the graph says two things under one name.
    """
    try:
        facts = facts_of(graph)
    except IrregularError as failure:
        return None, ((str(failure), "it differs between layers, and a config.json says it once"),)
    found = [(family, tuple(problems(facts, family))) for family in families]
    return min(found, key=lambda one: len(one[1]))


def matched(facts: GraphFacts, family: Family) -> Match | None:
    """What `family` says of these facts, if it can say all of them."""
    rows = tensor_rows(facts, family)
    if rows is None or next(problems(facts, family), None) is not None:
        return None
    return Match(family, _config(_values(facts, family), family), rows, facts.uses)


def problems(facts: GraphFacts, family: Family) -> Iterator[tuple[str, str]]:
    """(field, why) of everything that `family` cannot say."""
    values = _values(facts, family)
    said = {path for key in family.keys for path in key.ours}
    for path, value in values.items():
        if path in family.always:
            if value != family.always[path]:
                yield path, f"{value}, and in every {family.title} {family.always[path]}"
        elif path in family.follows:
            if value != (wanted := RULES[family.follows[path]](values)):
                yield path, f"{value}, and in every {family.title} {family.follows[path]} = {wanted}"
        elif path not in said and value != facts.defaults.get(path):
            yield path, f"{value}, and no key of a {family.title} says so"
    for key in family.keys:
        spoken = _spoken(key, values)
        if len(spoken) > 1:
            yield ", ".join(key.ours), f"one {key.name} cannot be {' and '.join(map(str, spoken))}"
        elif spoken and not key.can_say(spoken[0]):
            yield ", ".join(key.ours), f"{spoken[0]}, and {key.name} cannot say it"
        elif spoken and key.fixed and spoken != [wanted := RULES[key.null](values)]:
            yield ", ".join(key.ours), f"{spoken[0]}, and in every {family.title} {key.null} = {wanted}"
    if placements(values, family) is None:
        yield "layers", f"in a {family.title} each is {family.layer_text}"
    elif (limit := family.limit(values)) is not None:
        key_name, _, why = limit.partition(": ")
        yield next((key.ours[0] for key in family.keys if key.name == key_name), key_name), why
    if tensor_rows(facts, family) is None:
        known = {row.ours for row in family.tensors}
        nameless = [name for names in facts.tensors for name in names if name not in known]
        yield "weights", f"a {family.title} has no name for {', '.join(nameless) or 'each of them'}"


def _values(facts: GraphFacts, family: Family) -> Facts:
    values = family.derive(facts.values)
    return {**values, **(placements(values, family) or {})}


def _spoken(key: Key, values: Facts) -> list[Fact]:
    """What a key has to say: nothing of a layer that the model lacks, or of a context that the spec leaves open."""
    said = list(dict.fromkeys(values[path] for path in key.ours if path in values))
    return [] if said == [None] and key.null != "none" and key.type != "is" else said


def placements(values: Facts, family: Family) -> dict[str, int] | None:
    """`KIND.every` and `KIND.offset` of kinds that share a place with another; None if the layers are not as there."""
    words = values["layers"]
    assert isinstance(words, tuple)
    if family.pattern is not None:
        return {} if set(words) <= {family.pattern.ours(word, values) for word in family.pattern.words} else None
    layers = [word.split(" + ") for word in words]
    if any(len(kinds) != len(family.layers) for kinds in layers):
        return None
    placed: dict[str, int] = {}
    for i, alternatives in enumerate(family.layers):
        kinds = [layer[i] for layer in layers]
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
    """The family's rows for the tensors of a graph; None unless every tensor has a name of its own in its layer.

    A family without rows at all is a way to say configurations alone.
    """
    if not family.tensors:
        return ()
    table = {row.ours: row.theirs for row in reversed(family.tensors) if row.applies(facts.values)}
    for names in facts.tensors:
        theirs = {table[name] for name in names if name in table}
        if len(theirs) != len(names):
            return None
    found = [name for name in table if any(name in names for names in facts.tensors)]
    places = {"{attn.n_kv_heads}": str(facts.values.get("attn.n_kv_heads")), "{share}": facts.share}
    places |= {} if facts.values["tied"] else {"{home}": "{each}"}
    rows = [(_with(ours, places), _with(table[ours], places)) for ours in reversed(found)]
    if facts.values["tied"]:  # some files of a tied model hold the embedding a second time
        rows.append((rows[0][0], family.head))
    return tuple(rows)


def _with(name: str, places: Mapping[str, str]) -> str:
    for place, text in places.items():
        name = name.replace(place, text)
    return name


def _config(values: Facts, family: Family) -> Mapping[str, object]:
    """The config.json of facts without problems."""
    config: dict[str, object] = {}
    if family.architecture:
        config |= {"model_type": family.name, "architectures": [family.architecture]}
    for key in family.keys:
        for value in _spoken(key, values):
            _put(config, key.name, value == key.words[0] if key.type == "is" else value)
    if family.pattern is not None:
        config[family.pattern.key] = family.pattern.written(values)
    for only in family.only:
        if only.written:
            _put(config, only.name, only.value)
    return family.write(config)


def _says(config: Mapping[str, object], name: str) -> bool:
    """Whether `outer.inner` of a nested dictionary is there."""
    outer, _, inner = name.rpartition(".")
    within = config.get(outer) if outer else config
    return isinstance(within, Mapping) and inner in within


def _put(config: dict[str, object], name: str, value: object) -> None:
    """Set `outer.inner` of a nested dictionary."""
    outer, _, inner = name.rpartition(".")
    target = config.setdefault(outer, {}) if outer else config
    assert isinstance(target, dict)
    target[inner] = value
