"""One run of the command line in this process, and everything that must hold of it whatever it was given."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

from archc import cli

CPU_SECONDS = 2.0  # of the process, not of the wall: a busy machine makes no input slower


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str
    seconds: float


def run(arguments: list[str], stdin: bytes = b"") -> Ran:
    """`archc ARGUMENTS` with `stdin`, in this process."""
    kept = sys.argv, sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    sys.argv = ["archc", *arguments]
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    sys.stdout, sys.stderr = io.TextIOWrapper(out, "utf-8"), io.TextIOWrapper(err, "utf-8")
    began = time.process_time()
    try:
        cli.main()
    except SystemExit as stop:
        status = stop.code
    finally:
        seconds = time.process_time() - began
        sys.stdout.flush()
        sys.stderr.flush()
        said = out.getvalue().decode(), err.getvalue().decode()
        sys.argv, sys.stdin, sys.stdout, sys.stderr = kept
    assert isinstance(status, int)
    return Ran(status, *said, seconds)


def problem(data: bytes, choice: int, folder: Path, seconds: float = CPU_SECONDS) -> tuple[str | None, float]:
    """What is wrong with how archc takes the spec `data`, if anything, and the CPU seconds of its slowest command.

    `choice` picks the commands that it is given to, none of which may take more than `seconds`. `folder` is empty, the
    current one, and empty again afterwards.
    """
    spec = folder / "spec.arch"
    spec.write_bytes(data)
    slowest = 0.0
    try:
        for arguments in _commands(choice):
            ran = run(arguments, data if "-" in arguments else b"")
            slowest = max(slowest, ran.seconds)
            wrong = _wrong(ran, seconds) or _formatting(arguments, ran)
            if spec.read_bytes() != data:
                wrong = wrong or "it changed the spec"
            if wrong:
                return f"archc {' '.join(arguments)}: {wrong}", slowest
            if "out" in arguments:
                wrong = _removed(folder / "out", ran)
                if wrong:
                    return f"archc {' '.join(arguments)}: {wrong}", slowest
        left = sorted(set(os.listdir(folder)) - {"spec.arch"})
        return (f"files left behind: {left}" if left else None), slowest
    finally:
        spec.unlink()


def _commands(choice: int) -> list[list[str]]:
    """Checked always, analysed and formatted often, built at times."""
    commands = [["check", "spec.arch"]]
    match choice % 20:
        case 0 | 1:
            commands.append(["build", "spec.arch", "-o", "out"])
        case 2 | 3 | 4:
            commands = [["analyze", "-"]]
        case 5 | 6:
            commands = [["analyze", "spec.arch", "--json"]]
        case 7 | 8 | 9 | 10 | 11:
            commands = [["fmt", "-"]]
        case 12:
            commands = [["check", "--json", "-"]]
        case 13:
            commands = [["build", "-", "--print-after", "fuse_add_norm"]]
    return commands


def _wrong(ran: Ran, seconds: float) -> str | None:
    if ran.status not in (0, 1):
        return f"exit status {ran.status}\n{ran.err[-2000:]}"
    if "Traceback" in ran.out + ran.err or "internal-error" in ran.err:
        return ran.err[-2000:]
    if ran.status and "error[" not in ran.err and '"severity": "error"' not in ran.out:
        return "it failed without a diagnostic"
    if ran.seconds > seconds:
        return f"{ran.seconds:.1f} s"
    bad = next((char for char in ran.err if not char.isprintable() and char != "\n"), None)
    return f"it sends the terminal {bad!r}" if bad else None


def _formatting(arguments: list[str], ran: Ran) -> str | None:
    """What is printed in canonical form is canonical."""
    if arguments[0] != "fmt" or ran.status:
        return None
    again = run(["fmt", "-"], ran.out.encode())
    return None if (again.status, again.out) == (0, ran.out) else "formatting twice differs"


def _removed(out: Path, ran: Ran) -> str | None:
    """Remove a package; a build that failed has left none, one that did not has left what its manifest names."""
    if ran.status:
        return "a failed build left a folder" if out.exists() else None
    names = set(os.listdir(out))
    files = json.loads((out / "manifest.json").read_bytes())["files"]
    for name in names:
        (out / name).unlink()
    out.rmdir()
    return None if names == {*files, "manifest.json"} else f"more than the manifest names: {sorted(names - {*files})}"
