"""`archc init`: a commented spec to begin with, one of each family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archc.cli.inputs import STANDARD_INPUT
from archc.cli.talk import say
from archc.diagnostics import Diagnostic, DiagnosticError, nearest

STARTERS = Path(__file__).parents[1] / "starters"
MARK = "# "

Family = Annotated[str | None, typer.Argument(metavar="FAMILY", help="Without one, the families there are.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE|-", help="FAMILY.arch unless given.")]


def init(family: Family = None, out: Out = None) -> None:
    """Write a commented spec to begin with; never over a file that is there."""
    families = {path.stem: path for path in sorted(STARTERS.glob("*.arch"))}
    if family is None:
        width = max(map(len, families))
        say("\n".join(f"{name:<{width}}  {about(path)}" for name, path in families.items()))
        return
    if family not in families:
        near = nearest(family, families)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(families)}"
        raise typer.BadParameter(f"there is no family {family!r}; {hint}", param_hint="FAMILY")
    text = families[family].read_text(encoding="utf-8")
    if str(out) == STANDARD_INPUT:
        say(text)
        return
    path = out or Path(f"{family}.arch")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        message = f"{path} is there already; nothing was written"
        raise DiagnosticError(Diagnostic("would-overwrite", message, help="name another file with -o")) from None
    except OSError as failure:
        message = f"cannot write {path}: {failure.strerror}"
        raise DiagnosticError(Diagnostic("unwritable-folder", message)) from None
    say(f"wrote {path}; next: archc analyze {path}")


def about(path: Path) -> str:
    """The first line of a starter says what it is."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix(MARK).rstrip()
