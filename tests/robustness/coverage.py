"""Which lines of archc a run reaches that no run before it did."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import archc

HERE = str(Path(archc.__file__).parent)


class Coverage:
    """Lines that were reached, as (code, line). From Python 3.12 on a line costs nothing once it was seen."""

    def __init__(self) -> None:
        self.seen: set[tuple[CodeType, int]] = set()
        self.left: dict[CodeType, set[int]] = {}  # lines of a function that were never reached
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            monitoring.use_tool_id(monitoring.COVERAGE_ID, "fuzz")
            monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.LINE, self._reached)

    def __len__(self) -> int:
        return len(self.seen)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Note what is reached in the meantime."""
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(sys.monitoring.COVERAGE_ID, sys.monitoring.events.LINE)
        else:
            sys.settrace(self._called)
        try:
            yield
        finally:
            if sys.version_info >= (3, 12):
                sys.monitoring.set_events(sys.monitoring.COVERAGE_ID, 0)
            else:
                sys.settrace(None)

    def _reached(self, code: CodeType, line: int) -> Any:
        if code.co_filename.startswith(HERE):
            self.seen.add((code, line))
        return sys.monitoring.DISABLE  # type: ignore[attr-defined,unused-ignore]

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        """What traces the lines of a call: nothing where all of them are known."""
        code = frame.f_code
        left = self.left.get(code)
        if left is None:
            ours = code.co_filename.startswith(HERE)
            left = {line for _, _, line in code.co_lines() if line and line != code.co_firstlineno} if ours else set()
            self.left[code] = left
        return self._line if left else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        left = self.left[frame.f_code]
        if frame.f_lineno in left:
            left.discard(frame.f_lineno)
            self.seen.add((frame.f_code, frame.f_lineno))
        return self._line if left else None
