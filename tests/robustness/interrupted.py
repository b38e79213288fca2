"""A process that builds into one folder again and again while builds are killed, disks fill up, and others build.

    python -m tests.robustness.interrupted killed|failing|racing SEED COUNT

After each disturbance the next build must find the old package or the new one and write its own, whole by its manifest,
and no file that archc did not write may have changed. What was seen is printed as JSON.
"""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from archc import compiler
from archc.cli.folder import write_package
from archc.cli.journal import JOURNAL, STAGING, settle
from archc.cli.manifest import MANIFEST, hash_of
from archc.diagnostics import DiagnosticError, Source
from tests.robustness.command import run

OLD = "model old; vocab 16; d_model 8; context 16; mlp none; block x2 < mamba >"
NEW = "model new; vocab 32; d_model 8; context 16; mlp swiglu(8); block x2 < mamba, attn gqa(2,1) d_head=4 >"
FOREIGN = {
    "step_100.safetensors": b"\0weights" * 100, "notes.txt": b"mine", "model.py.orig": b"mine too", ".archc": b"mine",
    "runs/best/model.py": b"# an old one", "data/manifest.json": b"{}",
}  # fmt: skip


def package(text: str) -> dict[str, str]:
    return compiler.build(compiler.load(Source("spec", text)))


def lay_foreign(folder: Path) -> None:
    for name, data in FOREIGN.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of archc in the folder; the foreign ones are as they were."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for name, data in FOREIGN.items():
        assert found.pop(name) == data, f"{name} was touched"
    return found


def check_whole(folder: Path, *possible: dict[str, str]) -> int:
    """Which of the packages the folder holds: exactly its files, and the hashes of its manifest."""
    found = contents(folder)
    hashes = json.loads(found.pop(MANIFEST))["files"]
    assert hashes == {name: hash_of(data) for name, data in found.items()}, "the manifest names other files"
    for i, texts in enumerate(possible):
        if found == {name: text.encode() for name, text in texts.items() if name != MANIFEST}:
            return i
    raise AssertionError(f"a mixture of packages: {sorted(found)}")


def forked(action: Callable[[], object]) -> int:
    """The id of a process that does `action` and ends."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        action()
        status = 0
    finally:
        os._exit(status)


# --- kill -9 ---------------------------------------------------------------------------------------


def killed(chance: random.Random, count: int) -> dict[str, Any]:
    """Kill builds at random moments: half of them anywhere in the command, half while it writes."""
    texts = package(OLD), package(NEW)
    seen = Counter({"staging": 0, "moving": 0})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "out")
        lay_foreign(folder)

        def command(text: int) -> None:
            run(["build", "-e", (OLD, NEW)[text], "-o", str(folder)])

        def writing(text: int) -> None:
            write_package(folder, texts[text], force=False)

        spans = {}
        for text, action in enumerate((command, writing)):
            began = time.perf_counter()
            os.waitpid(forked(lambda act=action, to=text: act(to)), 0)
            spans[action] = time.perf_counter() - began
        at = check_whole(folder, *texts)
        for i in range(count):
            action = (command, writing)[i % 2]
            child = forked(lambda act=action, to=1 - at: act(to))
            time.sleep(chance.uniform(0, 1.1 * spans[action]))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if (folder / STAGING).exists():
                seen["moving" if (folder / STAGING / JOURNAL).exists() else "staging"] += 1
            if i % 4 < 2:  # the journal alone leads to one of the two packages
                settle(folder)
                at = check_whole(folder, *texts)
            else:
                at = chance.randrange(2)
                command(at)
                check_whole(folder, texts[at])
    return {"kills": count, **seen}


# --- a disk that is full, a folder that is not ours --------------------------------------------------


class Fault:
    """Makes the operating system refuse: the operation number `at` on files, and with `lasting` every later one.

    Opening, making, moving and removing are refused where Python asks for them (an audit hook); writing, where bytes go
    to a file, after half of them were written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.number, self.active, self.done = errno.ENOSPC, False, 0
        self.at, self.lasting = -1, False
        sys.addaudithook(self._hook)
        self._open = io.open

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or not isinstance(arguments[0] if arguments else None, str | os.PathLike):
            return
        if not str(arguments[0]).startswith(self.folder):
            return
        makes = event in ("os.mkdir", "os.rename") or (event == "open" and self._writes(arguments[2]))
        if makes or (event in ("os.remove", "os.rmdir") and self.number == errno.EACCES):
            self.reached(str(arguments[0]))

    @staticmethod
    def _writes(flags: object) -> bool:
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))

    def reached(self, path: str) -> None:
        """Count an operation; raise if it is to fail."""
        self.done += 1
        if self.done - 1 == self.at or (self.lasting and self.done > self.at):
            raise OSError(self.number, os.strerror(self.number), path)

    @contextmanager
    def on(self, number: int, at: int, lasting: bool) -> Iterator[None]:
        self.number, self.at, self.lasting, self.done, self.active = number, at, lasting, 0, True
        io.open = self._opened  # type: ignore[assignment]  # what pathlib opens files with
        try:
            yield
        finally:
            io.open, self.active = self._open, False

    def _opened(self, file: Any, mode: str = "r", *others: Any, **more: Any) -> Any:
        if "b" in mode and set(mode) & set("wx+a") and str(file).startswith(self.folder):
            return io.BufferedWriter(_Failing(file, mode.replace("b", ""), fault=self))
        return self._open(file, mode, *others, **more)


class _Failing(io.FileIO):
    def __init__(self, file: Any, mode: str, fault: Fault) -> None:
        super().__init__(file, mode)
        self.fault = fault

    def write(self, data: Any) -> int:
        try:
            self.fault.reached(str(self.name))
        except OSError:
            super().write(bytes(data)[: len(data) // 2])
            raise
        return super().write(data)


def failing(chance: random.Random, count: int) -> dict[str, Any]:
    """Every operation of a build fails once with each error, alone and with all that follow it."""
    texts = package(OLD), package(NEW)
    seen = Counter({"old": 0, "new": 0, "in between": 0, "no matter": 0})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "out"
        lay_foreign(folder)
        fault = Fault(folder)
        operations = {}
        for number in (errno.ENOSPC, errno.EACCES):
            write_package(folder, texts[0], force=False)
            with fault.on(number, -1, lasting=False):
                write_package(folder, texts[1], force=False)
            operations[errno.errorcode[number]] = fault.done
            for point in range(operations[errno.errorcode[number]]):
                for lasting in (False, True):
                    write_package(folder, texts[0], force=False)
                    try:
                        with fault.on(number, point, lasting):
                            write_package(folder, texts[1], force=False)
                        seen["no matter"] += 1  # that a folder is there is no reason to stop
                        check_whole(folder, texts[1])
                    except DiagnosticError as failure:
                        codes = {finding.code for finding in failure.diagnostics}
                        seen[_state(folder, texts) if codes == {"unwritable-folder"} else f"{codes}"] += 1
                    after = chance.choice(texts)
                    write_package(folder, after, force=False)
                    check_whole(folder, after)
    return {"operations": operations, **seen}


def _state(folder: Path, texts: tuple[dict[str, str], ...]) -> str:
    if (folder / STAGING / JOURNAL).exists():
        contents(folder)
        return "in between"
    for path in (folder / STAGING).glob("*"):
        path.unlink()  # rubbish that the next build would drop
    return ("old", "new")[check_whole(folder, *texts)]


# --- builds at the same time -----------------------------------------------------------------------


def racing(chance: random.Random, count: int) -> dict[str, Any]:
    """Rounds of eight builds at once into one folder, which is new in every other round."""
    texts = package(OLD), package(NEW)
    with tempfile.TemporaryDirectory() as name:
        for turn in range(count):
            folder = Path(name, f"out{turn // 2}")
            if turn % 2 == 0 and chance.random() < 0.5:
                lay_foreign(folder)
            children = [forked(partial(write_package, folder, texts[i % 2], force=False)) for i in range(8)]
            assert all(os.waitpid(child, 0)[1] == 0 for child in children), "a build failed"
            lay_foreign(folder)
            check_whole(folder, *texts)
            assert not (folder / STAGING).exists()
    return {"rounds": count, "builds": 8 * count}


if __name__ == "__main__":
    way = {"killed": killed, "failing": failing, "racing": racing}[sys.argv[1]]
    print(json.dumps(way(random.Random(sys.argv[2]), int(sys.argv[3]))))
