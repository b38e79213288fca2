"""Checkpoints: a directory a step, complete or absent.

    OUT/step-000100/  model*.safetensors  optimizer*.safetensors  spec.arch  manifest.json

A checkpoint is written under a temporary name in OUT, brought to the disk, and renamed. manifest.json holds the SHA-256
of every other file, the hash of the spec's meaning, the step, and versions. Tied weights are stored once.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .model import NAME, SPEC_HASH, Model
from .precision import cast_
from .shards import SHARD_BYTES, CheckpointError, Shards, Source, Written, listed, sha256, write_bytes, write_shards

MANIFEST = "manifest.json"
FORMAT = 1
_SPEC = Path(__file__).with_name("spec.arch")
_TEMPORARY = ".incomplete-"


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says."""

    step: int
    spec_hash: str
    model: str
    files: dict[str, str]  # name to SHA-256
    tied: dict[str, str] = field(default_factory=dict)  # name to the name that it is stored under
    run: dict[str, object] = field(default_factory=dict)  # the settings of the run that wrote it
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


def empty(device: torch.device, dtype: torch.dtype) -> Model:
    """The model in memory, in its dtypes, with values that do not count: to be loaded or initialised."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # so that a wide copy never exists, not even for a moment
    try:
        with device:
            model = Model()
    finally:
        torch.set_default_dtype(before)
    cast_(model, dtype, model.keep_fp32())
    return model


def stored(model: Model) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model's tensors by name, each once, and the other names of tied ones: alias to stored name."""
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor
    return tensors, tied


def save(
    directory: Path,
    step: int,
    model: Model,
    *,
    optimizer: Mapping[str, Tensor] | None = None,
    run: Mapping[str, object] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write the checkpoint of a step; returns its directory."""
    tensors, tied = stored(model)
    sources = {name: Source.of(tensor) for name, tensor in tensors.items()}
    state = {name: Source.of(tensor) for name, tensor in (optimizer or {}).items()}
    return write(directory, step, sources, tied=tied, optimizer=state, run=run, shard_bytes=shard_bytes)


def write(
    directory: Path,
    step: int,
    tensors: Mapping[str, Source],
    *,
    tied: Mapping[str, str],
    optimizer: Mapping[str, Source] | None = None,
    run: Mapping[str, object] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a checkpoint from sources, one tensor (or piece of it) in memory at a time."""
    final = directory / f"step-{step:06d}"
    with appearing(final) as folder:
        files = write_shards(folder, "model", tensors, shard_bytes=shard_bytes)
        if optimizer:
            files |= write_shards(folder, "optimizer", optimizer, shard_bytes=shard_bytes)
        if _SPEC.exists():
            files["spec.arch"] = write_bytes(folder / "spec.arch", _SPEC.read_bytes())
        manifest = Manifest(step, SPEC_HASH, NAME, hashes(files), dict(tied), dict(run or {}), versions())
        write_bytes(folder / MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    return final


@contextmanager
def appearing(final: Path) -> Iterator[Path]:
    """A folder to fill that takes its name when it is complete; if filling it fails, nothing is left."""
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_incomplete(final.parent, final.name)
    folder = final.with_name(f"{_TEMPORARY}{final.name}")
    folder.mkdir()
    try:
        yield folder
        _to_disk(folder)
        if final.exists():
            _set_aside(final)
        folder.rename(final)
        _to_disk(final.parent)
    finally:
        _remove_incomplete(final.parent, final.name)


def hashes(files: Mapping[str, Written]) -> dict[str, str]:
    """The part of a manifest that says what each file's content must be."""
    return {name: file.sha256 for name, file in files.items()}


def versions() -> dict[str, str]:
    """What a checkpoint was written with."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def steps(directory: Path) -> dict[int, Path]:
    """The complete checkpoints in a directory, oldest first."""
    found = {}
    for path in directory.iterdir() if directory.is_dir() else ():
        match = re.fullmatch(r"step-(\d+)", path.name)
        if match and (path / MANIFEST).is_file():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def latest(directory: Path) -> Path | None:
    """The newest complete checkpoint in a directory."""
    return next(reversed(steps(directory).values()), None)


def find(path: Path) -> Path:
    """The checkpoint at `path`: that directory itself, or the newest one inside it."""
    if (path / MANIFEST).is_file():
        return path
    newest = latest(path)
    if newest is None:
        raise CheckpointError(f"{path} holds no checkpoint" if path.is_dir() else f"{path} is not a directory")
    return newest


def prune(directory: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints; 0 keeps all."""
    for path in list(steps(directory).values())[:-keep] if keep else ():
        _set_aside(path)
    _remove_incomplete(directory, "step-*")


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint directory."""
    template = Manifest(0, "", "", {})
    try:
        fields = json.loads((path / MANIFEST).read_bytes())
        if fields["format"] != FORMAT:
            raise CheckpointError(f"{path}: its format is {fields['format']!r}, this package reads {FORMAT}")
        manifest = Manifest(**fields)
        if any(type(value) is not type(getattr(template, name)) for name, value in vars(manifest).items()):
            raise TypeError
        return manifest
    except OSError as error:
        raise CheckpointError(f"{path / MANIFEST}: {error.strerror}") from None
    except (TypeError, LookupError, json.JSONDecodeError, UnicodeDecodeError):
        raise CheckpointError(f"{path / MANIFEST} is damaged") from None


def verify(path: Path, files: Mapping[str, str], *patterns: str) -> list[Path]:
    """The files that match, after each has proved to be what the manifest says."""
    chosen = {name: digest for name, digest in files.items() if any(fnmatch(name, pattern) for pattern in patterns)}
    wrong = []
    for name, digest in chosen.items():
        if Path(name).name != name or not (path / name).is_file():
            wrong.append(f"{name} is missing")
        elif sha256(path / name) != digest:
            wrong.append(f"{name} was changed")
    if wrong:
        raise CheckpointError(f"{path} is not as it was written: {listed(wrong)}")
    return [path / name for name in chosen]


def open_weights(path: Path, model: Model, *, other_spec: bool = False) -> tuple[Manifest, Shards]:
    """The weights of a checkpoint, after they have proved to be whole and to be those of this model.

    `other_spec` accepts a checkpoint whose spec means something else (other frequencies, say) as long as all names and
    shapes agree. Of `model` only names and shapes count: it may be on the meta device.
    """
    manifest = read_manifest(path)
    verify(path, manifest.files, "spec.arch")
    shards = Shards(verify(path, manifest.files, "*model*.safetensors"))
    tensors, tied = stored(model)
    differences = _differences(shards, tensors)
    if manifest.tied != tied:
        differences.append(f"tied weights: {manifest.tied or 'none'} there, {tied or 'none'} here")
    if manifest.spec_hash != SPEC_HASH and not other_spec:
        title = f"{path} was written by another spec (hash {manifest.spec_hash} there, {SPEC_HASH} here)"
        raise CheckpointError("\n".join([title, *differences, *_spec_diff(path)]))
    if differences:
        raise CheckpointError("\n".join([f"{path} does not fit this model", *differences]))
    return manifest, shards


def load(path: Path, model: Model, *, other_spec: bool = False) -> Manifest:
    """Load the weights into the model in place, on its device and in its dtypes; nothing moves unless all is well."""
    manifest, shards = open_weights(path, model, other_spec=other_spec)
    with torch.no_grad():
        for name, tensor in stored(model)[0].items():
            tensor.copy_(shards.read(name))
    return manifest


def load_optimizer(path: Path) -> dict[str, Tensor]:
    """The optimizer's state of a checkpoint, verified; empty if it has none."""
    shards = Shards(verify(path, read_manifest(path).files, "*optimizer*.safetensors"))
    return {name: shards.read(name) for name in shards.names()}


def _differences(shards: Shards, tensors: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in tensors if name not in shards]
    unexpected = [name for name in shards.names() if name not in tensors]
    shapes = [
        f"{name} {list(shards.info(name).shape)} there, {list(tensor.shape)} here"
        for name, tensor in tensors.items()
        if name in shards and shards.info(name).shape != tuple(tensor.shape)
    ]
    kinds = [
        f"{name} {shards.info(name).dtype} there, {tensor.dtype} here"
        for name, tensor in tensors.items()
        if name in shards and shards.info(name).dtype.is_floating_point != tensor.is_floating_point()
    ]
    found = {"only in this model": missing, "only in the checkpoint": unexpected, "of another shape": shapes}
    found["of another kind"] = kinds
    return [f"{what}: {listed(names)}" for what, names in found.items() if names]


def _spec_diff(path: Path) -> Iterable[str]:
    there = path / "spec.arch"
    if not there.is_file() or not _SPEC.is_file():
        return ()
    before, after = (file.read_text(encoding="utf-8", errors="replace").splitlines() for file in (there, _SPEC))
    return difflib.unified_diff(before, after, "the checkpoint's spec", "this package's spec", lineterm="", n=1)


def _set_aside(path: Path) -> None:
    """Make a checkpoint absent in one step; what is left under the temporary name is removed by whoever comes next."""
    path.rename(path.with_name(f"{_TEMPORARY}old-{path.name}"))


def _remove_incomplete(directory: Path, name: str) -> None:
    for pattern in (f"{_TEMPORARY}{name}", f"{_TEMPORARY}old-{name}"):
        for path in directory.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a directory cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
