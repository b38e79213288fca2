"""The command `archc`: the only part that prints, exits and writes files."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator

from archc.cli import talk
from archc.cli.talk import DIAGNOSTICS, INTERNAL, WOULD_OVERWRITE, internal_error, tell
from archc.diagnostics import Diagnostic, DiagnosticError

COMPLETING = "_ARCHC_COMPLETE"  # by which a shell asks for completions


def main() -> None:
    """Run the command line and exit with one of `talk.STATUSES`."""
    talk.begin()
    status = _status()
    with contextlib.suppress(BrokenPipeError):
        talk.end()
    sys.exit(status)


def _status() -> int:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _run()
    except DiagnosticError as failure:
        tell(failure.diagnostics)
        return WOULD_OVERWRITE if any(d.code == "would-overwrite" for d in failure.diagnostics) else DIAGNOSTICS
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DIAGNOSTICS
    except OSError as failure:
        where = f" {failure.filename}" if failure.filename else ""
        tell([Diagnostic("system-error", f"the system refuses{where}: {failure.strerror or failure}")])
        return DIAGNOSTICS
    except Exception as failure:
        if os.environ.get("ARCHC_TRACEBACK"):
            raise
        tell([internal_error(failure)])
        return INTERNAL


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """What imports make lives to the end: the collector need not look at it, neither now nor later.

    That takes a fifth off the whole time of a short command. A process freezes once, however often it runs commands.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
        gc.enable()


def _run() -> int:
    with _no_collection():
        from archc.cli.commands import app

        command = app(sys.argv[1:], complete=COMPLETING in os.environ)
    try:
        command()
    except SystemExit as stop:
        status = stop.code
    else:
        status = 0
    sys.stdout.flush()
    return status if isinstance(status, int) else 0 if status is None else DIAGNOSTICS
