"""Diagnostics: every code has a page, an example of it and its exact text; and how they are drawn."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path

import pytest

from archc.compiler import load
from archc.diagnostics import (
    Diagnostic,
    DiagnosticError,
    Label,
    Report,
    Source,
    Span,
    codes,
    error,
    explain,
    nearest,
    render,
    to_json,
    warning,
)
from archc.diagnostics.findings import distance
from archc.grammar.parse import parse
from archc.grammar.sources import MAX_SOURCE
from archc.linting import lint
from archc.passes.accelerators import ACCELERATORS
from archc.passes.plan import Plan
from archc.passes.workload import DEFAULT_CONTEXT, Workload
from archc.report.sizing import Request

ROOT = Path(__file__).parents[1]
ERRORS = ROOT / "tests" / "errors"
PAIRS = sorted(path.stem for path in ERRORS.glob("*.arch"))

# Findings about the surroundings of a run, not about the text of a spec: tests of the commands provoke them.
OF_COMMANDS = {
    "cannot-merge",
    "internal-error",
    "merge-conflict",
    "not-a-setting",
    "not-json",
    "system-error",
    "unknown-code",
    "unmeasured",
    "unreadable-file",
    "unsupported-config",
    "unsupported-model",
    "unwritable-folder",
    "would-overwrite",
}

# Inputs that nobody wants to see in full.
LONG_INPUTS = {"source-too-large": "mamba " * (MAX_SOURCE // 6 + 1)}
ABRIDGED_PAGES = {"expression-too-long", "nesting-too-deep", "not-text", "source-too-large"}

# What is legal and yet unwise is said of a plan and a device.
LINTED: dict[str, Request] = {
    "int32-offsets": Request(()),
    "no-positions": Request(()),
    "tile-too-large": Request((), device=ACCELERATORS["a100"]),
    "uneven-plan": Request((), Plan(tp=8, ep=6, fsdp=3, pp=3)),
    "uneven-tiles": Request(()),
    "unpadded-vocab": Request(()),
}

PAGE = re.compile(
    r"# (?P<code>[a-z0-9]+(-[a-z0-9]+)*)\n\n(?P<text>.+?)\n\n"
    r"Wrong:\n\n```(?P<language>arch|console)\n(?P<wrong>.+?)\n```\n\nRight:\n\n```(arch|console)\n(?P<right>.+?)\n```\n",
    re.DOTALL,
)


def findings(source: Source) -> tuple[Diagnostic, ...]:
    try:
        model = load(source)
    except DiagnosticError as found:
        return found.diagnostics
    request = LINTED.get(Path(source.name).stem)
    workload = Workload(model.graph.settings.context or DEFAULT_CONTEXT)
    return (*model.warnings, *(lint(model, workload, request) if request else ()))


def syntax_codes(text: str) -> set[str]:
    try:
        parse(Source("page", text))
    except DiagnosticError as found:
        return {finding.code for finding in found.diagnostics}
    return set()


def used_codes() -> dict[str, str]:
    """Every code that archc's own source gives to a diagnostic, and a file that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "archc").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in codes():
                found[node.value] = path.name
    return found


@pytest.mark.parametrize("code", sorted({*PAIRS, *LONG_INPUTS}))
def test_exact_text(code: str) -> None:
    name = f"{code}.arch"
    text = LONG_INPUTS.get(code) or (ERRORS / name).read_bytes().decode()
    found = findings(Source(name, text))
    assert code in {finding.code for finding in found}
    drawn = "\n\n".join(render(finding, colour=False) for finding in found) + "\n"
    if os.environ.get("ARCHC_UPDATE_GOLDENS"):
        (ERRORS / f"{code}.txt").write_text(drawn, "utf-8")
    for finding in found:
        assert not re.match("[A-Z][a-z]* ", finding.message), "a message begins small, as in rustc"
        assert not finding.message.endswith("."), "a message has no full stop"
    assert drawn == (ERRORS / f"{code}.txt").read_text("utf-8")


def test_every_code_has_its_pair_and_every_pair_its_code() -> None:
    expected = set(codes()) - OF_COMMANDS
    assert {path.stem for path in ERRORS.glob("*.txt")} == expected
    assert {*PAIRS, *LONG_INPUTS} == expected


def test_every_page_is_of_a_code_in_use() -> None:
    assert set(codes()) == set(used_codes())


@pytest.mark.parametrize("code", codes())
def test_page(code: str) -> None:
    page = explain(code)
    assert page is not None
    match = PAGE.fullmatch(page)
    assert match, page
    assert match["code"] == code
    assert all(len(line) <= 120 for line in page.splitlines())
    if match["language"] == "console":
        return
    assert not syntax_codes(match["right"])
    wrong = syntax_codes(match["wrong"])
    assert wrong <= {code}
    if any(f'"{code}"' in path.read_text("utf-8") for path in (ROOT / "archc" / "grammar").glob("*.py")):
        assert wrong or code in ABRIDGED_PAGES


def test_a_code_without_a_page_is_refused() -> None:
    span = Span(Source("s", "x"), 0, 1)
    for make in (error, warning):
        with pytest.raises(KeyError, match="no page"):
            make("no-such-code", "It cannot be.", span)
    assert explain("no-such-code") is None
    assert explain("../__init__") is None


# --- drawing ---------------------------------------------------------------------------------------

TEXT = """model x

\tblock x4 < attn gqa(32,12) >
vocab 日本語 e\u0301 5
let g = <
  mamba,
  attn,
>
end"""
SOURCE = Source("specs/tiny.arch", TEXT)


def at(text: str, words: str = "", *, primary: bool = False) -> Label:
    start = TEXT.index(text)
    return Label(Span(SOURCE, start, start + len(text)), words, primary)


def drawn(*labels: Label, help: str | None = None, colour: bool = False) -> list[str]:
    return render(Diagnostic("some-code", "A sentence.", labels, help), colour=colour).split("\n")


def test_one_line() -> None:
    heads = TEXT.index("32,12")
    labels = (
        Label(Span(SOURCE, heads + 3, heads + 5), "does not divide 32", True),
        Label(Span(SOURCE, heads, heads + 2)),
    )
    assert drawn(*labels, help="one\ntwo") == [
        "error[some-code]: A sentence.",
        " --> specs/tiny.arch:3:25",
        "  |",
        "3 |     block x4 < attn gqa(32,12) >",
        "  |                         -- ^^ does not divide 32",
        "  = help: one",
        "          two",
    ]


def test_several_labels_on_a_line_and_several_lines() -> None:
    found = drawn(at("gqa", "a", primary=True), at("x4", "b"), at("attn", "c"), at("x", "d"), at("5", "e"))
    assert found[2:] == [
        "  |",
        "1 | model x",
        "  |       - d",
        "2 |",
        "3 |     block x4 < attn gqa(32,12) >",
        "  |           --   ---- ^^^ a",
        "  |           |    |",
        "  |           |    c",
        "  |           b",
        "4 | vocab 日本語 e\u0301 5",
        "  |                - e",
    ]


def test_lines_far_apart() -> None:
    assert drawn(at("end", "z", primary=True), at("model", "a"))[2:] == [
        "  |",
        "1 | model x",
        "  | ----- a",
        "...",
        "9 | end",
        "  | ^^^ z",
    ]


def test_wide_characters_and_tabs() -> None:
    assert drawn(at("語 e\u0301", "here", primary=True))[3:] == [
        "4 | vocab 日本語 e\u0301 5",
        "  |           ^^^^ here",
    ]


def test_a_label_over_several_lines() -> None:
    assert drawn(at("<\n  mamba,\n  attn,\n>", "this", primary=True), at("mamba", "that"))[2:] == [
        "  |",
        "5 |   let g = <",
        "  |  _________^",
        "6 | |   mamba,",
        "  | |   ----- that",
        "7 | |   attn,",
        "8 | | >",
        "  | |_^ this",
    ]
    assert drawn(at("let g = <\n  mamba,\n  attn,\n>", "all", primary=True))[3:5] == ["5 | / let g = <", "..."]


def test_labels_in_another_source() -> None:
    other = Source("--set", "d_model=40x96")
    found = drawn(at("model", "here"), Label(Span(other, 8, 13), "set here", True))
    assert found[1] == " --> --set:1:9"
    assert found[5] == " ::: specs/tiny.arch:1:1"


def test_a_long_line_is_cut() -> None:
    source = Source("long", "x" * 500 + "yy" + "z" * 500)
    found = drawn(Label(Span(source, 500, 502), "here", True))
    assert all(len(line) < 150 for line in found)
    assert found[3].index("yy") == found[4].index("^^")


def test_nothing_reaches_the_terminal_that_it_would_obey() -> None:
    evil = "\x1b[31m\u202e\u2028\ud800\x9b"
    source = Source(evil, evil)
    found = render(Diagnostic("some-code", evil, (Label(Span(source, 0, 3), evil, True),), evil), colour=False)
    assert found.isprintable() or all(char.isprintable() or char == "\n" for char in found)
    found.encode()


def test_places_at_the_ends_of_a_text() -> None:
    for text in ("", "\n", "a", "a\n", "a\r\n\r\n"):
        source = Source("s", text)
        for start in range(len(text) + 1):
            for end in range(start, len(text) + 1):
                assert "^" in render(
                    Diagnostic("some-code", "m", (Label(Span(source, start, end), "x", True),)), colour=True
                )


def test_no_label_at_all() -> None:
    assert drawn(help="h") == ["error[some-code]: A sentence.", "  = help: h"]


def test_colours_change_nothing_but_colours() -> None:
    labels = at("gqa", "a", primary=True), at("x4", "b"), at("<\n  mamba", "c")
    plain, coloured = drawn(*labels, help="h"), drawn(*labels, help="h", colour=True)
    assert [re.sub("\x1b\\[[0-9;]*m", "", line) for line in coloured] == plain
    assert coloured[0].startswith("\x1b[1;31merror[some-code]\x1b[0m")


def test_as_data() -> None:
    found = to_json(Diagnostic("some-code", "A sentence.", (at("x4", "b", primary=True),), "h", "warning"))
    assert json.loads(json.dumps(found)) == {
        "code": "some-code",
        "severity": "warning",
        "message": "A sentence.",
        "help": "h",
        "labels": [
            {
                "source": "specs/tiny.arch",
                "start": {"line": 3, "column": 8, "offset": 16},
                "end": {"line": 3, "column": 10, "offset": 18},
                "text": "b",
                "primary": True,
            }
        ],
    }


# --- collecting ------------------------------------------------------------------------------------


def test_report_keeps_order_and_drops_repeats() -> None:
    report = Report()
    one, two = Diagnostic("a", "one"), Diagnostic("b", "two", severity="warning")
    report.add(two, one, two)
    assert tuple(report) == (two, one)
    assert report.errors == (one,)
    with pytest.raises(DiagnosticError) as raised:
        report.raise_if_errors()
    assert raised.value.diagnostics == (two, one)


def test_nearest() -> None:
    known = ["mamba", "mamba2", "attn", "n_heads", "gqa", "at"]
    meant = {"mmaba": "mamba", "Mamba": "mamba", "mamba3": "mamba", "atn": "at", "num_heads": "n_heads", "gpa": "gqa"}
    assert {name: nearest(name, known) for name in meant} == meant
    assert nearest("epsilon", ["eps", "groups"]) == "eps"
    assert nearest("mam", ["mamba", "mamba2"]) is None
    for name in ("zzz", "s4", "attention", "heads_of_all", "", "x"):
        assert nearest(name, known) is None


def test_distances() -> None:
    pairs = {
        ("", ""): 0,
        ("", "ab"): 2,
        ("ab", "ba"): 1,
        ("abc", "abd"): 1,
        ("abcd", "acbd"): 1,
        ("kitten", "sitting"): 3,
    }
    for (one, other), expected in pairs.items():
        assert distance(one, other, 9) == distance(other, one, 9) == expected
    assert distance("abcdef", "uvwxyz", 2) > 2
