"""Safetensors files, one tensor at a time in both directions.

A file is 8 bytes (the header's length, little-endian), a JSON header `{name: {dtype, shape, data_offsets}}`, and the
tensors' bytes. Written here rather than through the safetensors library because that one takes a file's tensors all at
once and reads by mapping whole files: here memory holds one tensor, or one piece of it, whatever the checkpoint's size.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SHARD_BYTES = 4 << 30
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors library

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message is for the person at the keyboard."""


@dataclass(frozen=True)
class Info:
    """What a tensor is, before any of its bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Source:
    """A tensor to be written: what it is, and its bytes in order as pieces along the first axis."""

    info: Info
    pieces: Callable[[], Iterable[Tensor]]

    @classmethod
    def of(cls, tensor: Tensor) -> Source:
        return cls(Info(tensor.dtype, tuple(tensor.shape)), lambda: (tensor,))


@dataclass(frozen=True)
class Written:
    """A file on disk: its hash, its size, and the tensors inside."""

    sha256: str
    n_bytes: int
    names: tuple[str, ...] = ()


class Shards:
    """The tensors of several safetensors files under one set of names; nothing but headers is held."""

    def __init__(self, paths: Iterable[Path]):
        self._places: dict[str, tuple[Path, int, Info]] = {}
        twice = []
        for path in paths:
            for name, offset, info in _read_header(path):
                if name in self._places:
                    twice.append(f"{name} in {self._places[name][0].name} and {path.name}")
                self._places[name] = path, offset, info
        if twice:
            raise CheckpointError("tensors stored more than once: " + listed(twice))

    def names(self) -> list[str]:
        return list(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def info(self, name: str) -> Info:
        return self._places[name][2]

    def read(self, name: str, index: int | slice | None = None) -> Tensor:
        """The tensor on the CPU, or with `index` its slice [index] or rows [start:stop] along the first axis."""
        path, offset, info = self._places[name]
        if index is not None:
            first, n_rows = (index, 1) if isinstance(index, int) else (index.start, index.stop - index.start)
            row = Info(info.dtype, info.shape[1:])
            offset += first * row.n_bytes
            info = row if isinstance(index, int) else Info(info.dtype, (n_rows, *row.shape))
        tensor = torch.empty(info.shape, dtype=info.dtype)
        wanted = _bytes_of(tensor)
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while wanted.nbytes:
                n_read = file.readinto(wanted)
                if not n_read:
                    raise CheckpointError(f"{path}: the file ends inside {name}")
                wanted = wanted[n_read:]
        return tensor


def write_shards(
    folder: Path,
    prefix: str,
    sources: Mapping[str, Source],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Written]:
    """Write the tensors in order as `prefix.safetensors`, or as `prefix-0000i-of-0000n.safetensors` by size."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, source in sources.items():
        if groups[-1] and filled + source.info.n_bytes > shard_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += source.info.n_bytes
    written = {}
    for i, names in enumerate(groups, 1):
        part = "" if len(groups) == 1 else f"-{i:05d}-of-{len(groups):05d}"
        file = f"{prefix}{part}.safetensors"
        written[file] = _write_file(folder / file, {name: sources[name] for name in names})
    return written


def write_bytes(path: Path, content: bytes) -> Written:
    """Write a small file through to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Written(hashlib.sha256(content).hexdigest(), len(content))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(items: Iterable[str], most: int = 8) -> str:
    """Items as text for a message, cut to a length that can be read."""
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _write_file(path: Path, sources: Mapping[str, Source]) -> Written:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, source in sources.items():
        begin, end = end, end + source.info.n_bytes
        if source.info.dtype not in _NAMES:
            raise CheckpointError(f"{name}: {source.info.dtype} has no place in a safetensors file")
        header[name] = {
            "dtype": _NAMES[source.info.dtype],
            "shape": list(source.info.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors' bytes start aligned
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in (struct.pack("<Q", len(text)), text):
            file.write(chunk)
            digest.update(chunk)
        for name, source in sources.items():
            n_bytes = 0
            for piece in source.pieces():
                content = _bytes_of(piece.detach().cpu().contiguous())
                file.write(content)
                digest.update(content)
                n_bytes += content.nbytes
            if n_bytes != source.info.n_bytes:
                raise CheckpointError(f"{name}: {n_bytes} bytes came, {source.info.n_bytes} were announced")
        file.flush()
        os.fsync(file.fileno())
    return Written(digest.hexdigest(), 8 + len(text) + end, tuple(sources))


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, as bytes."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _read_header(path: Path) -> list[tuple[str, int, Info]]:
    """Name, offset of the first byte in the file, and info of every tensor; the header is not trusted."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, _LONGEST_HEADER):
                raise ValueError("its header is cut short")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        found = []
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"{name} has the unknown type {entry['dtype']}")
            info = Info(DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"]))
            inside = 0 <= begin <= end <= size - 8 - length
            if not inside or end - begin != info.n_bytes or min(info.shape, default=0) < 0:
                raise ValueError(f"the place of {name} is wrong")
            found.append((name, 8 + length + begin, info))
        return found
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from None
