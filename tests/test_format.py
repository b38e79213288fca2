"""The printer: what it prints is read back as the same tree, and printing twice changes nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archc.diagnostics import Source
from archc.grammar import tree
from archc.grammar.format import format_expr, format_spec
from archc.grammar.parse import parse, parse_expr
from tests import spec_trees

SPECS = sorted((Path(__file__).parents[1] / "specs").glob("*.arch"))

quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def read(text: str) -> tree.Spec:
    return parse(Source("test", text))


def check_round_trip(spec: tree.Spec) -> str:
    text = format_spec(spec)
    again = read(text)
    assert again == spec, text
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in spec.comments), text
    assert format_spec(again) == text
    return text


@quick
@given(spec_trees.specs)
def test_any_tree_survives(spec: tree.Spec) -> None:
    check_round_trip(spec)


@quick
@given(spec_trees.specs, st.integers(0, 2**32))
def test_any_layout_and_comments_survive(spec: tree.Spec, seed: int) -> None:
    """The tokens of a spec, with line ends, blank lines and comments thrown in wherever they may stand."""
    text = scatter(format_spec(spec), random.Random(seed))
    scattered = read(text)
    assert scattered == spec, text
    check_round_trip(scattered)


def scatter(text: str, chance: random.Random) -> str:
    """`text` with spaces, and places behind a bracket or a comma, blown up now and then."""
    out: list[str] = []
    for line in text.splitlines():
        indentation = len(line) - len(line.lstrip())
        for i, char in enumerate(line):
            out.append(char)
            if i >= indentation and char in " ,([" and chance.random() < 0.15:
                out.append(
                    chance.choice(["  ", "\t", "\n   ", " # c\n     ", "\n\n # own\n  ", "\r\n  # d\n\n\n  # e\n  "])
                )
        out.append(chance.choice(["\n", "\n", "\n\n", "\r\n", " # end\n", "\n# own\n", "\n\n\n  # far\n"]))
    return "".join(out)


@quick
@given(spec_trees.expressions())
def test_any_value_survives(value: tree.Expr) -> None:
    assert parse_expr(Source("--set", format_expr(value))) == value


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_specs_survive(path: Path) -> None:
    check_round_trip(read(path.read_text("utf-8")))
