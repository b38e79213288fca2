"""Which element of a spec a comment belongs to, for the printer.

Comments are taken in the order of the text while the printer walks the tree in that order. An element
takes those before it that no earlier element took, those inside it for which no part of it has a
place, and the one that ends its line.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

from archc.diagnostics import Source, Span
from archc.grammar.tree import Comment

_TO_CLOSER = re.compile(r"(?:[^#<>()\[\]]|#[^\n]*)*")


class Comments:
    """The comments of a spec that have not been taken yet."""

    def __init__(self, comments: Iterable[Comment], source: Source) -> None:
        self._left = deque(sorted(comments, key=lambda comment: comment.span.start))
        self._source = source
        self.moved: list[Comment] = []  # taken, but for want of a place left to an enclosing element

    def __bool__(self) -> bool:
        return bool(self._left)

    def before(self, offset: int) -> tuple[Comment, ...]:
        """Take those that begin before `offset`."""
        taken: list[Comment] = []
        while self._left and self._left[0].span.start < offset:
            taken.append(self._left.popleft())
        return tuple(taken)

    def take_moved(self) -> tuple[Comment, ...]:
        """Take those that an inner element left to this one."""
        taken = tuple(self.moved)
        self.moved.clear()
        return taken

    def behind(self, span: Span, limit: int | None) -> str | None:
        """Take the one that ends the line of `span`, if it stands before `limit`."""
        if not self._left or self._left[0].own_line:
            return None
        start = self._left[0].span.start
        if start < span.end or (limit is not None and start >= limit) or "\n" in self._source.text[span.end : start]:
            return None
        return self._left.popleft().text

    def closer(self, offset: int) -> int:
        """Where the bracket closes whose last element ends at `offset`."""
        match = _TO_CLOSER.match(self._source.text, offset)
        return match.end() if match else offset
