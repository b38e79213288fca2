"""Files of `torch.save`, one tensor at a time in both directions, as far as the operating system maps files.

Read with `weights_only`: nothing in a file is executed. What a training loop saved beside its `model` is left alone.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from .shards import CheckpointError, Info, Source, Written, sha256


class Pickled:
    """The tensors of one file; they are mapped, and a page is read when it is wanted."""

    def __init__(self, path: Path):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path} is not a whole file of torch.save: {error}") from None
        if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
            content = content["model"]
        if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
            raise CheckpointError(f"{path} is not a table of tensors")
        self._tensors: dict[str, Tensor] = {str(name): tensor.detach() for name, tensor in content.items()}

    def names(self) -> list[str]:
        return list(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def info(self, name: str) -> Info:
        tensor = self._tensors[name]
        return Info(tensor.dtype, tuple(tensor.shape))

    def read(self, name: str, index: int | slice | None = None) -> Tensor:
        """A copy of the tensor, or with `index` of its slice [index] or rows [start:stop] along the first axis."""
        tensor = self._tensors[name]
        return (tensor if index is None else tensor[index]).clone()


def write_pickled(path: Path, sources: Mapping[str, Source]) -> Written:
    """Write the tensors as `torch.save` does. They wait in files beside it, so that memory holds one of them."""
    with TemporaryDirectory(dir=path.parent) as folder:
        torch.save({name: _mapped(Path(folder) / str(i), sources[name]) for i, name in enumerate(sources)}, path)
    return Written(sha256(path), path.stat().st_size, tuple(sources))


def _mapped(path: Path, source: Source) -> Tensor:
    """A tensor whose memory is the file `path`."""
    with path.open("wb") as file:
        for piece in source.pieces():
            piece.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tofile(file)
    size = math.prod(source.info.shape)
    return torch.from_file(str(path), shared=False, size=size, dtype=source.info.dtype).reshape(source.info.shape)
