"""A process that gives archc one input after another, under limits, and says on standard output what came of it.

    python -m tests.robustness.worker mutated|hostile SEED COUNT

Each input comes from a seed of its own, which is printed with what went wrong. Memory is limited to what the process
holds at the start and 500 MB; every file that is opened for writing outside the process's own folder is reported.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from random import Random
from types import FrameType

from tests.robustness import inputs
from tests.robustness.command import problem, run

MEMORY = 500 * 10**6  # bytes beyond what an idle archc maps
HANG = 10  # CPU seconds after which an input is given up
MAKERS = {"mutated": inputs.mutated, "hostile": inputs.hostile}


class Hangs(BaseException):
    """Raised by the timer, and caught by nothing in archc."""


def make(kind: str, seed: int) -> bytes:
    return MAKERS[kind](Random(f"{kind} {seed}"))


def limit() -> None:
    """Cap memory, and make the CPU timer stop what hangs."""
    run(["analyze", "-e", "vocab 8; d_model 8; mlp none; block < mamba >"])  # imports all that is imported late
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _hangs)


def _hangs(number: int, frame: FrameType | None) -> None:
    raise Hangs


def watch_writes(folder: Path) -> list[str]:
    """A list that every path lands in that is opened for writing, made, moved or removed outside `folder`."""
    outside: list[str] = []
    events = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
    forbidden = {
        "os.system",
        "subprocess.Popen",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "socket.connect",
        "ctypes.dlopen",
    }

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in forbidden:
            outside.append(f"{event} {arguments}")
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in events:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | bytes) and not _within(os.fsdecode(path), folder):
            outside.append(f"{event} {os.fsdecode(path)}")

    sys.addaudithook(hook)
    return outside


def _within(path: str, folder: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(folder) or path == os.devnull


def main() -> None:
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.dont_write_bytecode = True
    limit()
    slowest: tuple[float, int] = (0.0, first)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        os.chdir(folder)
        outside = watch_writes(folder)
        for seed in range(first, first + count):
            print(seed, flush=True) if seed % 64 == 0 else None
            data = make(kind, seed)
            signal.setitimer(signal.ITIMER_PROF, HANG)
            try:
                wrong, seconds = problem(data, seed, folder)
            except Hangs:
                wrong, seconds = f"no end after {HANG} s:\n{traceback.format_exc()[-1500:]}", HANG
            except Exception:
                wrong, seconds = traceback.format_exc()[-3000:], 0.0
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, (seconds, seed))
            if outside:
                wrong = wrong or f"it touches {outside[:3]}"
                outside.clear()
            if wrong:
                failures.append(f"seed {seed}: {wrong}\n    {data[:300]!r}")
                if len(failures) >= 5:
                    break
        os.chdir("/")
    status = Path("/proc/self/status").read_text()  # getrusage remembers what this process was before exec
    peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps({"failures": failures, "slowest": slowest, "peak": peak}))


if __name__ == "__main__":
    main()
