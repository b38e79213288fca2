"""`archc graph`: the layers of a spec as a drawing."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from archc.cli.arguments import Expression, Settings, Spec, load, source
from archc.cli.talk import say
from archc.passes.outline import outline

As = Annotated[Literal["mermaid", "dot"], typer.Option("--as", help="Mermaid for Markdown, DOT for Graphviz.")]


def graph(spec: Spec = None, expression: Expression = None, settings: Settings = None, form: As = "mermaid") -> None:
    """The layers of a spec as a drawing, with what repeats in boxes."""
    from archc.report.drawing import dot, mermaid

    drawn = outline(load(source(spec, expression), settings).graph)
    say(mermaid(drawn) if form == "mermaid" else dot(drawn))
