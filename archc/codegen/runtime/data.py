"""Training data from any files: text as bytes, or token ids; a file is a document, documents are packed into rows.

Sampling is a function of (seed, step): an epoch is a shuffle of the documents laid end to end and cut into windows, and
the windows are drawn in a pseudo-random order. Nothing but the step has to be remembered to go on exactly.
"""

from __future__ import annotations

import glob
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .loss import IGNORED

HELD_OUT = 0.02
_COUNTED = 1 << 26  # tokens that the unigram entropy is measured on, at most
_IDS = (".bin", ".npy")

Ids = npt.NDArray[np.int64]


class DataError(ValueError):
    """Data that cannot be used; the message is for the person at the keyboard."""


@dataclass(frozen=True)
class Document:
    """Tokens [start, stop) of a file."""

    path: Path
    dtype: str  # of a token on disk
    start: int
    stop: int

    def read(self, start: int, stop: int) -> Ids:
        """Tokens [start, stop) of the document."""
        return np.asarray(_opened(self.path, self.dtype)[self.start + start : self.start + stop], dtype=np.int64)


@dataclass(frozen=True)
class Batch:
    """Rows to train on. Positions are None where every row is one document from its start."""

    tokens: Tensor  # [B, T]
    targets: Tensor  # [B, T], the next token; IGNORED at the end of a document
    positions: Tensor | None  # [B, T]

    def to(self, device: torch.device) -> Batch:
        positions = None if self.positions is None else self.positions.to(device)
        return Batch(self.tokens.to(device), self.targets.to(device), positions)

    @property
    def n_targets(self) -> int:
        """How many tokens the loss is a mean over."""
        return int((self.targets != IGNORED).sum())

    def split(self, parts: int) -> list[Batch]:
        """The rows in equal parts, for gradient accumulation."""
        size = len(self.tokens) // parts
        rows = (slice(i * size, (i + 1) * size) for i in range(parts))
        positions = self.positions
        return [Batch(self.tokens[r], self.targets[r], None if positions is None else positions[r]) for r in rows]


class Stream:
    """Documents laid end to end."""

    def __init__(self, documents: Sequence[Document], vocab: int):
        self.documents = documents
        self.lengths = np.array([d.stop - d.start for d in documents], dtype=np.int64)
        self.n_tokens = int(self.lengths.sum())
        self._vocab = vocab

    def read(self, start: int, stop: int, order: Ids, ends: Ids) -> tuple[Ids, Ids]:
        """Tokens [start, stop) with the documents in this order, and the position of each within what is seen of its
        document. `ends` is where each document ends in that order."""
        tokens, positions = [], []
        i = int(np.searchsorted(ends, start, side="right"))
        while start < stop:
            document = self.documents[order[i]]
            begin = int(ends[i] - self.lengths[order[i]])
            end = min(stop, int(ends[i]))
            part = document.read(start - begin, end - begin)
            if part.size and int(part.max()) >= self._vocab:
                raise DataError(f"{document.path} holds the id {part.max()}; the model's ids end at {self._vocab - 1}")
            tokens.append(part)
            positions.append(np.arange(end - start))
            start, i = end, i + 1
        return np.concatenate(tokens), np.concatenate(positions)


class Corpus:
    """Training and held-out documents."""

    def __init__(self, documents: Sequence[Document], *, vocab: int, length: int, seed: int = 0, skipped: int = 0):
        train, held_out = _split(documents)
        self.train, self.held_out = Stream(train, vocab), Stream(held_out, vocab)
        self.n_tokens = self.train.n_tokens + self.held_out.n_tokens
        self.n_files = len({d.path for d in documents})
        self.skipped = skipped
        self._length, self._seed, self._vocab = length, seed, vocab
        self._n_windows = (self.train.n_tokens - length) // length  # whatever the epoch's offset
        self._packed = len(train) > 1
        self._epoch = lru_cache(maxsize=2)(self._shuffled_documents)
        if self._n_windows < 1:
            raise DataError(
                f"too little data: {self.train.n_tokens:,} tokens to train on, "
                f"rows of {length:,} tokens need at least {2 * length:,}"
            )

    def batch(self, step: int, size: int) -> Batch:
        """The `size` rows of a step."""
        rows = []
        for i in range(step * size, (step + 1) * size):
            epoch, i = divmod(i, self._n_windows)
            order, ends, offset = self._epoch(epoch)
            start = offset + self._length * _shuffled(i, self._n_windows, f"{self._seed}/{epoch}".encode())
            rows.append(self.train.read(start, start + self._length + 1, order, ends))
        return _batch(rows, self._packed)

    def held_out_batches(self, size: int, most: int) -> Iterator[Batch]:
        """The same rows at every call: the held-out documents in order, at most `most` batches."""
        stream, rows = self.held_out, []
        order, ends = np.arange(len(stream.documents)), np.cumsum(stream.lengths)
        for start in range(0, min(stream.n_tokens - 1, size * most * self._length), self._length):
            tokens, positions = stream.read(start, min(start + self._length + 1, stream.n_tokens), order, ends)
            missing = self._length + 1 - len(tokens)  # the last row is filled up with documents of one ignored token
            rows.append((np.pad(tokens, (0, missing)), np.pad(positions, (0, missing))))
            if len(rows) == size:
                yield _batch(rows, packed=True)
                rows = []
        if rows:
            yield _batch(rows, packed=True)

    @cached_property
    def unigram_entropy(self) -> float:
        """Entropy of the token frequencies in nats: the loss of a model that knows nothing else."""
        counts = np.zeros(self._vocab, dtype=np.int64)
        share = min(1.0, _COUNTED / self.n_tokens)
        for stream in (self.train, self.held_out):
            for i, length in enumerate(stream.lengths):
                for start, stop in pairwise([*range(0, n := math.ceil(length * share), 1 << 20), n]):
                    tokens, _ = stream.read(start, stop, np.array([i]), np.array([length]))
                    counts += np.bincount(tokens, minlength=self._vocab)
        p = counts[counts > 0] / counts.sum()
        return float(-(p * np.log(p)).sum())

    def fingerprint(self) -> str:
        """A hash of the documents' names and sizes, which tells whether a run goes on with the same data."""
        digest = hashlib.sha256()
        for d in (*self.train.documents, *self.held_out.documents):
            digest.update(f"{d.path.name}:{d.dtype}:{d.start}:{d.stop}\n".encode())
        return digest.hexdigest()[:16]

    def _shuffled_documents(self, epoch: int) -> tuple[Ids, Ids, int]:
        """An epoch's order of documents, where each ends, and the offset of its first window."""
        random = np.random.default_rng([self._seed, epoch])
        order = random.permutation(len(self.train.documents))
        return order, np.cumsum(self.train.lengths[order]), int(random.integers(self._length))


def load(paths: Iterable[str], *, vocab: int, length: int, seed: int = 0, ids: str = "auto") -> Corpus:
    """Everything under these files, directories and globs. Directories leave out hidden and binary files.

    `ids` is the type of the ids in .bin files: uint16, uint32, or auto (by the size of the vocabulary).
    """
    if ids == "auto":
        ids = "uint16" if vocab <= 1 << 16 else "uint32"
    found, skipped = _find(paths)
    n_ids = sum(path.suffix in _IDS for path in found)
    if 0 < n_ids < len(found):
        raise DataError(
            f"{n_ids} files of token ids (.bin, .npy) and {len(found) - n_ids} of text: give one kind, "
            "for example by a glob such as 'DIR/**/*.txt'"
        )
    documents = [document for path in found if (document := _document(path, ids))]
    if not documents:
        why = "every file is empty" if found else f"{skipped} files were found, none of them text"
        raise DataError(f"no data: {why}")
    return Corpus(documents, vocab=vocab, length=length, seed=seed, skipped=skipped)


def _find(paths: Iterable[str]) -> tuple[list[Path], int]:
    """The files meant by these arguments, each once, and how many were left out of directories."""
    found: dict[Path, Path] = {}
    skipped = 0
    for path in paths:
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if "**" in path:
            matches = [m for m in matches if not os.path.isdir(m)]
        if not matches:
            raise DataError(f"no file, directory or glob matches {path!r}")
        for match in matches:
            inside = list(_walk(match)) if os.path.isdir(match) else [Path(match)]
            usable = [p for p in inside if p.suffix in _IDS or not os.path.isdir(match) or _is_text(p)]
            skipped += len(inside) - len(usable)
            for p in usable:
                found.setdefault(p.resolve(), p)
    return list(found.values()), skipped


def _walk(directory: str) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(8192)
    except OSError:
        return False


def _document(path: Path, ids: str) -> Document | None:
    """The file as a document; None if it is empty."""
    dtype = ids if path.suffix == ".bin" else "npy" if path.suffix == ".npy" else "uint8"
    n_bytes, width = path.stat().st_size, 1 if dtype == "npy" else np.dtype(dtype).itemsize
    if n_bytes % width:
        raise DataError(f"{path}: {n_bytes} bytes are no whole number of {dtype} ids")
    n_tokens = len(_opened(path, dtype)) if dtype == "npy" else n_bytes // width
    return Document(path, dtype, 0, n_tokens) if n_tokens else None


@lru_cache(maxsize=1024)
def _opened(path: Path, dtype: str) -> npt.NDArray[np.unsignedinteger]:
    """A file's tokens, mapped."""
    if dtype != "npy":
        return np.memmap(path, dtype=dtype, mode="r")
    try:
        array: npt.NDArray[np.unsignedinteger] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is not a .npy file: {error}") from None
    if array.ndim != 1 or array.dtype.name not in ("uint8", "uint16", "uint32"):
        raise DataError(f"{path}: token ids are a 1-D array of uint16 or uint32, this is {array.ndim}-D {array.dtype}")
    return array


def _split(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Training and held-out documents. Where no document is small enough, the tail of the longest is held out."""
    budget = HELD_OUT * sum(d.stop - d.start for d in documents)
    order = np.random.default_rng(0).permutation(len(documents))  # never the run's seed: losses stay comparable
    held: set[int] = set()
    for i in map(int, order):
        length = documents[i].stop - documents[i].start
        if length <= budget:
            held.add(i)
            budget -= length
    if held:
        return [d for i, d in enumerate(documents) if i not in held], [documents[i] for i in sorted(held)]
    longest = max(documents, key=lambda d: d.stop - d.start)
    cut = longest.stop - math.ceil(budget)
    train = [replace(d, stop=cut) if d is longest else d for d in documents if d is not longest or cut]
    return train, [replace(longest, start=cut)]


def _batch(rows: Sequence[tuple[Ids, Ids]], packed: bool) -> Batch:
    tokens = torch.from_numpy(np.stack([row for row, _ in rows]))
    positions = torch.from_numpy(np.stack([row for _, row in rows]))
    targets = tokens[:, 1:].masked_fill(positions[:, 1:] == 0, IGNORED)
    return Batch(tokens[:, :-1].contiguous(), targets, positions[:, :-1].contiguous() if packed else None)


def _shuffled(i: int, n: int, key: bytes) -> int:
    """The image of i under a pseudo-random permutation of range(n): a Feistel network, walked until it lands inside."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = i >> half, i & low
        for round_ in range(4):
            digest = hashlib.blake2b(right.to_bytes(8), digest_size=8, key=key[:64], salt=bytes([round_])).digest()
            left, right = right, left ^ (int.from_bytes(digest) & low)
        i = left << half | right
        if i < n:
            return i
