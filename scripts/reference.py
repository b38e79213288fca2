"""The tables of docs/language.md, made from the registries: `python scripts/reference.py` writes them anew.

Between `<!-- NAME -->` and `<!-- end -->` the page holds what the function of that name says here; the rest of the page
is written by hand. `--check` only says whether anything would change.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import archc.layers  # noqa: F401  # registers every kind
from archc import compiler
from archc.cli.commands import COMMANDS
from archc.cli.talk import STATUSES
from archc.diagnostics import DiagnosticError, Source
from archc.elaborate import composite, macros, names, resolve, stack, suffix, values
from archc.elaborate.accepts import Owner, accepts, choices, example, is_kind, is_part, value_words
from archc.elaborate.constants import FUNCTIONS
from archc.elaborate.settings import ModelSettings
from archc.grammar import layout, numbers, sources
from archc.layers.kind import ChannelMixer, FieldInfo, Kind, Mixer, Part, fields_of
from archc.layers.parts import ShareFields
from archc.passes.spelling import spelled

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "language.md"
SPECS = sorted((ROOT / "specs").glob("*.arch"))
MARKED = re.compile(r"<!-- (?P<name>[a-z_]+) -->\n.*?<!-- end -->", re.DOTALL)
HEADER = "vocab 32000\nd_model 1024\nmlp none\n"

KEYWORDS = {
    "model": "`model NAME` names the model, and so its package",
    "let": "`let NAME = LAYER` or `let NAME = < GROUP >` gives something a name",
    "share": "`share NAME(FIELDS) xN = LAYER` declares weights that are stored once and used by many layers",
    "block": "`block xN < LAYERS > SUFFIX` adds layers to the model",
    "every": "`every N` says which layers of its bracket a suffix speaks of: of each N one, the last without `offset`",
    "offset": "`every N offset K`: the layers whose index leaves K when divided by N",
    "at": "`at [1, 4..7]` lists the layers that a suffix speaks of, counted from 0",
    "none": "`NAME none` and `NAME=none` switch something off",
}
OF_NUMBERS = {
    "sqrt": "the square root, exact where it is a fraction",
    "ceil": "the next whole number above",
    "floor": "the next whole number below",
    "min": "the least of one or more",
    "max": "the greatest of one or more",
}
LIMITS = [
    (f"{sources.MAX_SOURCE:,} characters", "a source"),
    (f"{layout.MAX_NESTING}", "brackets inside brackets"),
    (f"{numbers.MAX_DIGITS} digits, exponents to {numbers.MAX_EXPONENT}", "a number"),
    (f"{values.MAX_SIZE:,}", "a size, a count, the layers of a model"),
    (f"{names.MAX_NAME} characters", "a name"),
    (f"{suffix.MAX_LISTED:,} layers", "one `at`"),
    (f"{macros.MAX_MEMBERS}", "kinds in one layer"),
    (f"{composite.MAX_WORDS}", "words about one kind, those of its `let`s included"),
    (f"{resolve.MAX_LAYERS}", "different layers of a model"),
    (f"{stack.MAX_ELEMENTS:,} layers", "the period of all suffixes and copies together"),
    (f"{sources.MAX_FINDINGS}", "findings of one run"),
]


# --- what the page holds -----------------------------------------------------------------------------


def keywords() -> Iterator[str]:
    grammar = (ROOT / "archc" / "grammar" / "arch.lark").read_text(encoding="utf-8")
    reserved = re.findall(r'^[A-Z]+: "([a-z]+)"$', grammar, re.MULTILINE)
    yield from table(("word", "meaning"), ((f"`{word}`", KEYWORDS[word]) for word in reserved))


def units() -> Iterator[str]:
    rows = (
        (f"`{unit}`", f"{factor:,}", f"`4{unit}` is {4 * factor:,}") for unit, factor in numbers.UNITS.items() if unit
    )
    yield from table(("unit", "times", "example"), rows)


def functions() -> Iterator[str]:
    yield from table(("function", "is"), ((f"`{name}`", OF_NUMBERS[name]) for name in FUNCTIONS))


def limits() -> Iterator[str]:
    yield from table(("of", "at most"), ((of, most) for most, of in LIMITS))


def settings() -> Iterator[str]:
    yield from table_of(ModelSettings)
    for name in fields_of(ModelSettings):
        part = Part.known.get(name)
        if part:
            yield from ("", f"`{name}(...)`: {sentence(part)}", "")
            yield from table_of(part)


def mixers() -> Iterator[str]:
    yield from kinds(Mixer)


def channel_mixers() -> Iterator[str]:
    yield from kinds(ChannelMixer)


def every_kind() -> Iterator[str]:
    """The fields that all kinds have."""
    common = [info for info in fields_of(Kind).values() if info.metadata.get("late")]
    yield from table(HEADINGS, (row(Kind, info) for info in common))


def parts() -> Iterator[str]:
    own = fields_of(ModelSettings)
    for word, part in Part.known.items():
        if word in own:
            continue
        family = part.__mro__[1]
        of = f", one of {listed(word_of(family))}" if family is not Part and len(word_of(family)) > 1 else ""
        yield from (f"### `{word}`", "", documented(part) + of_family(of), "")
        yield from table_of(part)
        yield ""


def share() -> Iterator[str]:
    yield from table_of(ShareFields)


def statuses() -> Iterator[str]:
    yield from table(("status", "means"), ((f"{status}", meaning) for status, meaning in STATUSES.items()))


def commands() -> Iterator[str]:
    rows = ((f"`archc {name}`", sentence(command.load()).rstrip(".")) for name, command in sorted(COMMANDS.items()))
    yield from table(("command", "does"), rows)


SECTIONS: dict[str, Callable[[], Iterator[str]]] = {
    section.__name__: section
    for section in (
        keywords, units, functions, limits, settings, mixers, channel_mixers, every_kind, parts, share, statuses,
        commands,
    )
}  # fmt: skip


# --- kinds and fields --------------------------------------------------------------------------------

HEADINGS = ("field", "takes", "default", "meaning")


def kinds(of: type[Any]) -> Iterator[str]:
    for word, kind in Kind.known.items():
        if issubclass(kind, of):
            yield from (f"### `{word}`", "", documented(kind), "")
            yield from table_of(kind)
            yield from ("", "```arch", shortest(word), "```", "")


def documented(cls: type) -> str:
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def sentence(thing: Any) -> str:
    return " ".join(inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0].split())


def of_family(text: str) -> str:
    return f" It is{text[1:]}." if text else ""


def word_of(family: type) -> list[str]:
    return [word for word, part in Part.known.items() if issubclass(part, family)]


def table_of(cls: Owner) -> Iterator[str]:
    """The fields of a kind or part, but for those that all kinds have."""
    own = [info for info in fields_of(cls).values() if not info.metadata.get("late")]
    if own:
        yield from table(HEADINGS, (row(cls, info) for info in own))


def row(cls: Owner, info: FieldInfo) -> tuple[str, ...]:
    return f"`{info.name}`", taken(info), default(cls, info), info.doc


def taken(info: FieldInfo) -> str:
    """What a field takes: `whole number or none`."""
    plain = {int: "tokens" if info.metadata.get("tokens") else "whole number", Fraction: "number", bool: "flag"}
    plain |= {tuple[str, ...]: "list of names", tuple[int, ...]: "list of whole numbers"}
    options = []
    for kind in accepts(info):
        if kind in plain:
            bound = f" > {info.metadata['above']}" if kind in (int, Fraction) and "above" in info.metadata else ""
            options.append(plain[kind] + bound)
        elif is_kind(kind):
            options.append("channel mixer")
        elif is_part(kind):
            options += [f"`{word}`" for word in value_words([info]) if word in Part.known]
    options += [f"`{choice}`" for choice in choices(info)]
    return either([*options, "`none`"] if type(None) in accepts(info) else options)


def default(cls: Owner, info: FieldInfo) -> str:
    if info.required:
        return "`" + info.metadata["setting"] + "`'s" if "setting" in info.metadata else "required"
    value = next(f.default for f in fields(cls) if f.name == info.attribute)
    if value is None:
        return "`none`"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Fraction):
        return f"{float(value):g}" if value.denominator < 10**9 else f"{value}"
    return (
        f"`{spelled(value)}`"
        if isinstance(value, Part | Kind)
        else f"{value:,}"
        if isinstance(value, int)
        else f"`{value}`"
    )


def shortest(word: str) -> str:
    """The first of the ways to write a kind that is a model: bare, with what it requires, with one field more."""
    required = [
        info for info in fields_of(Kind.known[word]).values() if info.required and "setting" not in info.metadata
    ]
    needed = dict.fromkeys(example(info) for info in required)
    top = [text for text in needed if text.startswith("top")]
    ways = [
        [*needed],
        *([*needed, example(info)] for info in fields_of(Kind.known[word]).values() if not info.required),
    ]
    others = ["expert=swiglu(512)"] if "expert" in fields_of(Kind.known[word]) else []
    for way in ways:
        said = ", ".join([*others, *(text for text in way if text not in top)])
        layer = word + (f"({said})" if said else "") + "".join(f" {text}" for text in top)
        text = f"block < {layer} >"
        try:
            compiler.load(Source("example", HEADER + text))
        except DiagnosticError:
            continue
        return text
    raise ValueError(f"no short way to write `{word}`; give its fields examples in their metadata")


# --- text ---------------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for cells in (head, ("---",) * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def listed(words: list[str]) -> str:
    return either([f"`{word}`" for word in words], "and")


def either(options: list[str], joint: str = "or") -> str:
    return f" {joint} ".join(filter(None, [", ".join(options[:-1]), *options[-1:]]))


def updated(text: str) -> str:
    """The page with every marked table made anew."""

    def section(match: re.Match[str]) -> str:
        lines = "\n".join(SECTIONS[match["name"]]()).strip("\n")
        return f"<!-- {match['name']} -->\n{lines}\n<!-- end -->"

    return MARKED.sub(section, text)


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    new = updated(text)
    if "--check" not in sys.argv:
        PAGE.write_text(new, encoding="utf-8")
    elif new != text:
        print(f"{PAGE.name} is not current: run python scripts/reference.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
