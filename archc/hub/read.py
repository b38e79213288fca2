"""A config.json to facts: every key is understood, known to change nothing, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite

from archc.diagnostics import nearest
from archc.hub import every_config
from archc.hub.family import Family, Key, Type
from archc.hub.pattern import Pattern
from archc.hub.rules import RULES, Fact, Facts, kinds_of, whole

LARGEST = 10**12  # of any size of a model
EXTENT = (1e-30, 1e30)  # of numbers that a spec can write

_TYPES: dict[Type, str] = {
    "int": "a whole number from 1 on",
    "index": "a whole number from 0 on",
    "float": "a number above 0",
    "bool": "true or false",
    "is": "true or false",
    "among": "one of",
}


class UnsupportedConfig(ValueError):  # noqa: N818 (what it says of the file; the caller shows it)
    """A config.json that no spec says the same as. `problems` are (key, why), all of them."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("\n".join(f"{key}: {why}" for key, why in problems))
        self.problems = problems


@dataclass(frozen=True)
class _Said:
    """A key of the file under the name used here, with the name that stands in the file."""

    name: str
    value: object
    written: str


def facts_from(config: Mapping[str, object], families: tuple[Family, ...]) -> tuple[Family, Facts]:
    """The family of a config.json and what it says, defaults of transformers included. Raises UnsupportedConfig."""
    by_name = {family.name: family for family in families}
    model_type = config.get("model_type")
    family = by_name.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise UnsupportedConfig(("model_type", f"{_short(model_type)} is none of {', '.join(sorted(by_name))}"))
    said = list(_flat({key: _number(value) for key, value in config.items()}, family))
    _refuse([*_twice(said), *_foreign(said, family), *_architectures(config, family)])
    values = {one.name: one.value for one in said}
    if family.pattern is not None:
        _refuse(list(family.pattern.problems(values)))
    facts = _resolved(values, family)
    _refuse(_contradictions(facts, family))
    return family, facts


def _refuse(problems: list[tuple[str, str]]) -> None:
    if problems:
        raise UnsupportedConfig(*problems)


def _flat(config: Mapping[str, object], family: Family) -> Iterator[_Said]:
    """Every key under its usual name, those of nested dictionaries as `outer.inner`."""
    names = [*(key.name for key in family.keys), *(only.name for only in family.only)]
    nested = {name.partition(".")[0] for name in names if "." in name}
    for written, value in config.items():
        name = family.aliases.get(written, written)
        if name not in nested:
            yield _Said(name, value, written)
        elif isinstance(value, dict):
            for inner, inner_value in value.items():
                name_inside = f"{name}.{inner}"
                yield _Said(family.aliases.get(name_inside, name_inside), inner_value, f"{written}.{inner}")
        elif value is not None:
            yield _Said(name, value, written)


def _twice(said: list[_Said]) -> Iterator[tuple[str, str]]:
    first: dict[str, _Said] = {}
    for one in said:
        other = first.setdefault(one.name, one)
        if other.value != one.value:
            yield one.written, f"{_short(one.value)}, but {other.written} says {_short(other.value)}"


def _foreign(said: list[_Said], family: Family) -> list[tuple[str, str]]:
    """Keys that are unknown, of a wrong type, or supported with another value alone."""
    keys = {key.name: key for key in family.keys}
    only = {one.name: one for one in (*every_config.ONLY, *family.only)}
    inert = every_config.INERT | dict(family.inert) | dict.fromkeys(family.pattern.names if family.pattern else (), "")
    problems, unknown = [], []
    for one in said:
        if one.name in keys:
            if not _fits(one.value, keys[one.name]):
                wanted_type = " ".join([_TYPES[keys[one.name].type], ", ".join(keys[one.name].words)]).strip()
                problems.append((one.written, f"{_short(one.value)} is not {wanted_type}"))
        elif one.name in only:
            wanted = only[one.name]
            if one.value != wanted.value and one.value is not None:
                reason = f"{_short(one.value)} is not supported, only {_short(wanted.value)}: {wanted.why}"
                problems.append((one.written, reason))
        elif one.name not in inert and one.value is not None:  # null is how transformers writes that nothing is said
            near = nearest(one.name, [*keys, *only, *(family.pattern.names if family.pattern else ())])
            hint = f"; did you mean {near}?" if near else ""
            unknown.append((one.written, f"not known to {family.title}, so it may change what is computed{hint}"))
    # The further keys of a refused dictionary, such as the factors of a scaled rope, add nothing.
    refused = {key.partition(".")[0] for key, _ in problems if "." in key}
    return problems + [(key, why) for key, why in unknown if key.partition(".")[0] not in refused]


def _architectures(config: Mapping[str, object], family: Family) -> Iterator[tuple[str, str]]:
    named = config.get("architectures")
    if named is not None and named != [family.architecture]:
        yield "architectures", f"{_short(named)} is not supported, only {family.architecture}"


def _fits(value: object, key: Key) -> bool:
    if value is None or value == "auto":
        return bool(key.null) and (value == "auto") == (key.absent == "auto")
    if key.type in ("bool", "is"):
        return isinstance(value, bool)
    if key.type == "among":
        return value in key.words
    if isinstance(value, bool):
        return False
    if key.type == "float":
        return isinstance(value, int | float) and isfinite(value) and EXTENT[0] < value < EXTENT[1]
    return isinstance(value, int) and (0 if key.type == "index" else 1) <= value <= LARGEST


def _resolved(said: Mapping[str, object], family: Family) -> Facts:
    """Facts with transformers' defaults in, and without those of layers that the model lacks."""
    facts: dict[str, Fact] = {}
    for key in family.keys:
        value = said.get(key.name, key.absent)
        fact: Fact = RULES[key.null](facts) if value is None or value == "auto" else _fact(value, key)
        if key.fixed and fact != (wanted := RULES[key.null](facts)):
            raise UnsupportedConfig((key.name, f"{fact} is not supported, only {key.null} = {wanted}"))
        facts.update(dict.fromkeys(key.ours, fact))
    if family.pattern is not None:
        _list_layers(facts, said, family, family.pattern)
    facts |= {**family.always, **{path: RULES[rule](facts) for path, rule in family.follows.items()}}
    return _without_absent_parts(_without_absent_kinds(family.settle(facts), family))


def _list_layers(facts: dict[str, Fact], said: Mapping[str, object], family: Family, pattern: Pattern) -> None:
    """Add the words of all layers, and how many there are, which a file may say beside."""
    layers = facts["layers"] = pattern.read(said, facts)
    key = family.key_of("n_layers")
    if said.get(key) not in (None, len(layers)):
        raise UnsupportedConfig((key, f"{_short(said[key])}, but {pattern.key} has {len(layers)} layers"))
    facts["n_layers"] = len(layers)
    misplaced = pattern.misplaced(said, layers)
    if misplaced is not None:
        raise UnsupportedConfig(misplaced)


def _fact(value: object, key: Key) -> Fact:
    assert isinstance(value, int | float | str)
    if key.type == "is":
        return key.words[0] if value else None
    return float(value) if key.type == "float" else value


def _without_absent_kinds(facts: Facts, family: Family) -> Facts:
    if family.pattern is not None:
        used = kinds_of(facts) | {"norm", "residual", "mlp"}
        return {path: value for path, value in facts.items() if "." not in path or path.partition(".")[0] in used}
    absent = set()
    for alternatives in family.layers:
        if len(alternatives) == 2:
            first, second = alternatives
            if whole(facts, f"{second}.offset") >= whole(facts, "n_layers"):
                absent.add(second)
            if facts[f"{second}.every"] == 1:
                absent.add(first)
    placed = (".every", ".offset")
    return {p: v for p, v in facts.items() if p.partition(".")[0] not in absent or p.endswith(placed)}


def _without_absent_parts(facts: Facts) -> Facts:
    """Without what would be said of a part that is none: the theta of attention without positions."""
    absent = tuple(f"{path}." for path, value in facts.items() if value is None)
    return {path: value for path, value in facts.items() if not path.startswith(absent)}


def _contradictions(facts: Facts, family: Family) -> list[tuple[str, str]]:
    """What each key may say by itself, but not together."""
    found = []
    for kind in ("attn", "moe"):
        every, offset = facts.get(f"{kind}.every"), facts.get(f"{kind}.offset")
        if isinstance(every, int) and isinstance(offset, int) and offset >= every:
            found.append((family.key_of(f"{kind}.offset"), f"{offset} is outside of a period of {every}"))
    if "attn.n_heads" in facts:
        n_heads, n_kv_heads = whole(facts, "attn.n_heads"), whole(facts, "attn.n_kv_heads")
        if n_heads % n_kv_heads:
            found.append((family.key_of("attn.n_kv_heads"), f"{n_kv_heads} does not divide {n_heads} query heads"))
        d_head = whole(facts, "attn.d_head")
        if not d_head:
            found.append((family.key_of("attn.n_heads"), f"{n_heads} heads leave no width to a head"))
        if facts.get("attn.rope") and d_head % 2:
            found.append((family.key_of("attn.d_head"), f"{d_head} is odd, and rotary positions turn pairs"))
    if "moe.n_experts" in facts and whole(facts, "moe.top_k") > whole(facts, "moe.n_experts"):
        found.append((family.key_of("moe.top_k"), f"there are only {facts['moe.n_experts']} experts"))
    limit = family.limit(facts)
    if limit is not None:
        key, _, why = limit.partition(": ")
        found.append((key, why))
    return found


def _number(value: object) -> object:
    """A value, also inside lists, with the numbers that JSON lacks: transformers writes {"__float__": "Infinity"}."""
    if isinstance(value, list):
        return [_number(one) for one in value]
    if isinstance(value, dict) and value.keys() == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity"):
        return float(value["__float__"])
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
