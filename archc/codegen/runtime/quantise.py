"""Make experts of int8 from a checkpoint that was trained without: python -m PACKAGE.quantise CHECKPOINT OUT.

The checkpoint is one of the same spec without `weights=int8`. Each row of an expert's matrix becomes whole numbers from
-127 to 127 and one scale, its largest magnitude over 127; everything else is copied. One matrix is in memory at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoint
from .command import guarded
from .shards import CheckpointError, Info, Shards, Source, listed

SCALE = "_scale"  # what the name of a matrix's scales ends in
MOST = 127


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 and fp32 scales `[..., rows]` of matrices `[..., rows, columns]`; a row of zeros has scale 1."""
    wide = weight.float()
    scale = wide.abs().amax(-1) / MOST
    scale = torch.where(scale == 0, 1.0, scale)
    return (wide / scale[..., None]).round().to(torch.int8), scale


def quantise(source: Path, out: Path) -> Path:
    """Write a checkpoint of this package into the directory `out`; returns its own."""
    model = checkpoint.empty(torch.device("meta"), torch.float32)
    tensors, tied = checkpoint.stored(model)
    narrow = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8}
    scales = {name + SCALE for name in narrow}
    path = checkpoint.find(source)
    manifest = checkpoint.read_manifest(path)
    shards = Shards(checkpoint.verify(path, manifest.files, "*model*.safetensors"))
    _check(path, shards, {name: tuple(tensors[name].shape) for name in tensors if name not in scales})

    def rows(name: str, part: int) -> Callable[[], Iterator[Tensor]]:
        return lambda: (quantised(shards.read(name, i))[part][None] for i in range(len(tensors[name])))

    sources = {}
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if name in narrow:
            sources[name] = Source(Info(torch.int8, shape), rows(name, 0))
        elif name in scales:
            sources[name] = Source(Info(torch.float32, shape), rows(name.removesuffix(SCALE), 1))
        else:
            sources[name] = Source(shards.info(name), _whole(shards, name))
    return checkpoint.write(out, manifest.step, sources, tied=tied, run={**manifest.run, "quantised": str(path.name)})


def _whole(shards: Shards, name: str) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter((shards.read(name),))


def _check(path: Path, shards: Shards, wanted: dict[str, tuple[int, ...]]) -> None:
    wrong = [name for name, shape in wanted.items() if name not in shards or shards.info(name).shape != shape]
    wrong += [name for name in shards.names() if name not in wanted]
    if wrong:
        raise CheckpointError(f"{path} is not of this spec without weights=int8: {listed(wrong)}")
    if any(shards.info(name).dtype == torch.int8 for name in wanted):
        raise CheckpointError(f"{path} holds int8 weights already")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.quantise", description="Experts of int8.")
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a directory of some")
    parser.add_argument("out", type=Path, help="where the new one goes")
    chosen = parser.parse_args(arguments)

    def action() -> int:
        print(quantise(chosen.checkpoint, chosen.out))
        return 0

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
