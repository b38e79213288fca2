"""What a training run shows (a bar on a terminal with rich, else plain lines) and records (lines of JSON)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol

_PLAIN_SECONDS = 5.0


class Progress(Protocol):
    """Shows a run while it is entered."""

    def __enter__(self) -> Progress: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def advance(self, loss: float) -> None:
        """One more step is done."""

    def say(self, line: str) -> None:
        """Print a line without disturbing the bar."""


class Pace:
    """Steps done, tokens per second over them, and the time that the others will take."""

    def __init__(self, start: int, steps: int, tokens_per_step: int):
        self.step, self.steps = start, steps
        self._tokens_per_step = tokens_per_step
        self._marks: list[tuple[float, int]] = [(time.perf_counter(), start)]

    def advance(self) -> None:
        self.step += 1
        self._marks.append((time.perf_counter(), self.step))
        if len(self._marks) > 50:  # the pace of the last 50 steps; the first, which may compile, drops out
            del self._marks[0]

    @property
    def steps_per_second(self) -> float:
        (begin, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(end - begin, 1e-9)

    @property
    def tokens_per_second(self) -> float:
        return self.steps_per_second * self._tokens_per_step

    @property
    def remaining(self) -> str:
        """As 1:23:45, or 02:34 below an hour."""
        if self.steps_per_second == 0:
            return "--:--"
        seconds = round((self.steps - self.step) / self.steps_per_second)
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes:02d}:{seconds % 60:02d}"


class Plain:
    """A line every few seconds."""

    def __init__(self, pace: Pace):
        self._pace = pace
        self._next = 0.0

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, loss: float) -> None:
        self._pace.advance()
        pace = self._pace
        if time.perf_counter() >= self._next or pace.step == pace.steps:
            self._next = time.perf_counter() + _PLAIN_SECONDS
            self.say(
                f"step {pace.step}/{pace.steps}  loss {loss:.4f}  "
                f"{pace.tokens_per_second:,.0f} tokens/s  {pace.remaining} left"
            )

    def say(self, line: str) -> None:
        print(line, flush=True)


class Bar:
    """rich's progress bar."""

    def __init__(self, pace: Pace):
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._pace = pace
        columns = (
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=None),
            TextColumn("loss [bold]{task.fields[loss]}[/]  {task.fields[rate]} tokens/s  {task.fields[left]} left"),
        )
        self._bar = RichProgress(*columns, expand=True)
        self._task = self._bar.add_task("", total=pace.steps, completed=pace.step, loss="-", rate="-", left="--:--")

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, loss: float) -> None:
        self._pace.advance()
        rate = f"{self._pace.tokens_per_second:,.0f}"
        self._bar.update(
            self._task, completed=self._pace.step, loss=f"{loss:.4f}", rate=rate, left=self._pace.remaining
        )

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)


def progress(pace: Pace) -> Progress:
    """A bar where one can be drawn; otherwise plain lines, saying why."""
    if not sys.stdout.isatty():
        reason = "standard output is not a terminal"
    else:
        try:
            return Bar(pace)
        except ImportError:
            reason = "rich is not installed"
    print(f"progress as plain lines: {reason}", flush=True)
    return Plain(pace)


@contextmanager
def json_log(path: Path | None) -> Iterator[Callable[[dict[str, object]], None]]:
    """A function that appends a record to the file as a line of JSON."""
    if path is None:
        yield lambda record: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file:
        yield lambda record: print(json.dumps(record), file=file)
