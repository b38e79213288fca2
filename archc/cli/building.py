"""`archc build`: the package of a spec, written into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archc import compiler
from archc.cli.arguments import Expression, Settings, Spec, load, source
from archc.cli.checking import Format
from archc.cli.talk import DIAGNOSTICS, say, tell, write_as
from archc.diagnostics import Diagnostic


def build(
    spec: Spec = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="The folder of the package.")] = None,
    expression: Expression = None,
    settings: Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Move edited files aside as NAME.orig, and write.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Merge what changed into edited files, with git.")] = False,
    print_after: Annotated[str | None, typer.Option(metavar="PASS", help="Print the IR after a pass.")] = None,
    fuse: Annotated[bool, typer.Option("--fuse/--no-fuse", help="Fuse ops, or keep them as in the spec.")] = True,
    target: Annotated[str, typer.Option(metavar="sm_90|sm_80", help="The GPU to choose kernels' tiles for.")] = "sm_90",
    form: Format = None,
) -> None:
    """Write the package of a spec: PyTorch and Triton, without archc."""
    write_as(form)
    if out is None and print_after is None:
        raise typer.BadParameter("where to? give -o DIR", param_hint="-o")
    if force and merge:
        raise typer.BadParameter("edited files are merged, or moved aside: give one of --merge and --force")
    if print_after is not None and print_after not in compiler.pass_names():
        known = ", ".join(compiler.pass_names())
        raise typer.BadParameter(f"there is no pass {print_after!r}; there are {known}", param_hint="--print-after")
    if target not in compiler.targets():
        raise typer.BadParameter(f"there are tiles for {', '.join(compiler.targets())}", param_hint="--target")
    model = load(source(spec, expression), settings)
    if print_after is not None:
        say(compiler.ir_after(model, print_after))
    if out is not None:
        _write(out, compiler.build(model, fuse=fuse, target=target), force, merge)


def _write(out: Path, files: dict[str, str], force: bool, merge: bool) -> None:
    from archc.cli.folder import write_package
    from archc.cli.merge import merging

    done = write_package(out, files, force=force, merge=merging(out) if merge else None)
    counted = [(done.written, "written"), (done.unchanged, "unchanged"), (done.removed, "removed")]
    said = [f"{len(names)} {what}" for names, what in [*counted, (done.kept, "edited and kept")] if names]
    say(f"{out}: " + ", ".join(said))
    for names, what in (
        (done.moved, "moved aside, for it was edited"),
        (done.merged, "merged with its edits"),
        (done.left, "no longer generated, but edited, and so left"),
    ):
        for name in names:
            say(f"  {what}: {name}")
    if done.conflicts:
        tell([_conflicts(done.conflicts)])
        raise typer.Exit(DIAGNOSTICS)


def _conflicts(names: tuple[str, ...]) -> Diagnostic:
    message = f"edited and changed in the same place: {', '.join(names)}"
    hint = "decide between the marks <<<<<<< and >>>>>>>; NAME.orig is the file as it was edited"
    return Diagnostic("merge-conflict", message, help=hint)
