"""Checkpoints of other programs in and out, one tensor at a time.

    python -m PACKAGE.hf import THEIRS OUT_DIR          a checkpoint to train or generate from
    python -m PACKAGE.hf export CHECKPOINT_DIR THEIRS   a directory that transformers, or another program, loads

hub.py has the names and the configuration of each family that computes what this model computes. hf_names.py reads the
names, hf_config.py compares the configuration.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoint
from .command import CommandError, amount, guarded
from .hf_config import compare_config, read_config, read_json, write_json
from .hf_family import SAFETENSORS, Family
from .hf_names import Pair, interleaved, lines, pairs, tied_names
from .hub import FAMILIES
from .model import Model
from .pickled import Pickled, write_pickled
from .shards import CheckpointError, Info, Shards, Source, Written, listed, write_shards

INDEX = f"{SAFETENSORS}.index.json"
SHARD_BYTES = 5 * 10**9  # what transformers writes
NO_FAMILY = "no family of checkpoints computes what this model computes"

_DERIVED = re.compile(r"(^|\.)rotary_emb\.inv_freq$")  # stored by old versions; follows from the configuration


def import_hf(source: Path, out: Path, *, allow: Iterable[str] = ()) -> Path:
    """Write a checkpoint of step 0 from a directory of theirs, or a file of torch.save; returns its directory."""
    if checkpoint.steps(out):
        raise CommandError(f"{out} holds checkpoints already")
    model = checkpoint.empty(torch.device("meta"), torch.float32)
    family, shards, found = _opened(source, model, allow)

    def pieces(pair: Pair) -> Callable[[], Iterator[Tensor]]:
        return lambda: (pair.from_theirs(shards.read(name, pair.rows)) for name in pair.theirs)

    sources = {}
    for pair in found:
        dtypes = {shards.info(name).dtype for name in pair.theirs}
        if len(dtypes) > 1:
            raise CheckpointError(f"{source}: the experts of {pair.ours} have several dtypes")
        sources[pair.ours] = Source(Info(dtypes.pop(), pair.info.shape), pieces(pair))
    return checkpoint.write(out, 0, sources, tied=checkpoint.stored(model)[1], run={"imported": family.name})


def load_hf(model: Model, source: Path, *, allow: Iterable[str] = ()) -> None:
    """Load a directory of theirs, or a file of torch.save, into the model in place, on its device and in its dtypes."""
    _, shards, found = _opened(source, model, allow)
    tensors, _ = checkpoint.stored(model)
    with torch.no_grad():
        for pair in found:
            for i, name in enumerate(pair.theirs):
                target = tensors[pair.ours]
                (target[i] if pair.stacked else target).copy_(pair.from_theirs(shards.read(name, pair.rows)))


def export_hf(source: Path, out: Path, *, family: str | None = None, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write a directory as a family has it from a checkpoint; returns it.

    The family is the one that the checkpoint was imported from, or else the first, unless given.
    """
    if out.exists():
        raise CommandError(f"{out} exists already")
    path = checkpoint.find(source)
    model = checkpoint.empty(torch.device("meta"), torch.float32)
    manifest, shards = checkpoint.open_weights(path, model)
    written = _named(family) if family else _first(FAMILIES, manifest.run.get("imported"))

    def pieces(parts: list[tuple[Pair, int | None]]) -> Callable[[], Iterator[Tensor]]:
        def read() -> Iterator[Tensor]:
            contents = (pair.to_theirs(shards.read(pair.ours, index)) for pair, index in parts)
            groups = parts[0][0].groups
            return contents if groups == 1 else iter((interleaved(contents, groups),))

        return read

    sources, dtypes = {}, Counter[torch.dtype]()
    for name, parts in _parts(pairs(_infos(model), written.rows, written.uses)).items():
        dtype, *others = {shards.info(pair.ours).dtype for pair, _ in parts}
        if others:
            raise CheckpointError(f"{source}: the parts of {name} have several dtypes")
        sources[name] = Source(Info(dtype, parts[0][0].their_shape), pieces(parts))
        dtypes[dtype] += sources[name].info.n_bytes
    config = dict(written.config)
    if "model_type" in config:
        config["dtype"] = str(dtypes.most_common(1)[0][0]).removeprefix("torch.")
    with checkpoint.appearing(out) as folder:
        files = _write_weights(folder, written, sources, shard_bytes)
        files[written.config_file] = write_json(folder / written.config_file, config)
        write_json(folder / checkpoint.MANIFEST, {"files": checkpoint.hashes(files)})
    return out


def _write_weights(folder: Path, family: Family, sources: Mapping[str, Source], shard_bytes: int) -> dict[str, Written]:
    if family.weights != SAFETENSORS:
        return {family.weights: write_pickled(folder / family.weights, sources)}
    files = write_shards(folder, "model", sources, shard_bytes=shard_bytes)
    if len(files) > 1:
        places = {name: file for file, written in files.items() for name in written.names}
        total = sum(source.info.n_bytes for source in sources.values())
        files[INDEX] = write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    return files


def _opened(source: Path, model: Model, allow: Iterable[str]) -> tuple[Family, Shards | Pickled, list[Pair]]:
    """Their tensors and how they pair with ours, after configuration, names and shapes have proved to be right."""
    if not FAMILIES:
        raise CommandError(NO_FAMILY)
    shards: Shards | Pickled
    if source.is_file():
        shards, family = Pickled(source), _first([f for f in FAMILIES if f.weights != SAFETENSORS] or FAMILIES)
    elif source.is_dir():
        config = read_config(source, FAMILIES)
        family = _first([f for f in FAMILIES if f.config.get("model_type") == config.get("model_type")] or FAMILIES)
        compare_config(source, config, family, frozenset(allow))
        shards = _weights(source)
    else:
        raise CommandError(f"{source} is not a directory, nor a file")
    found = pairs(_infos(model), family.rows, family.uses)
    wanted = dict.fromkeys(name for pair in found for name in pair.names)
    shapes = {name: pair.their_shape for pair in found for name in (*pair.names, *pair.perhaps)}
    tied = tied_names(checkpoint.stored(model)[1], family.rows)
    tied |= {name: pair.theirs[0] for pair in found for name in (*pair.again, *pair.perhaps)}
    problems = {
        "missing": [name for name in wanted if name not in shards],
        "unexpected": [n for n in shards.names() if n not in wanted and n not in tied and not _DERIVED.search(n)],
        "of another shape": [
            f"{name} {list(shards.info(name).shape)}, not {list(shape)}"
            for name, shape in shapes.items()
            if name in shards and shards.info(name).shape != shape
        ],
        "tied in this model, but with a value of their own": [
            alias
            for alias, name in tied.items()
            if alias in shards and name in shards and not torch.equal(shards.read(alias), shards.read(name))
        ],
    }
    if any(problems.values()):
        raise CheckpointError(f"{source} does not fit this model" + lines(problems))
    return family, shards, found


def _first(families: Iterable[Family], name: object = None) -> Family:
    """The family of a name, or else the first."""
    families = list(families)
    if not families:
        raise CommandError(NO_FAMILY)
    return next((family for family in families if family.name == name), families[0])


def _named(name: str) -> Family:
    names = [family.name for family in FAMILIES]
    if name not in names:
        raise CommandError(f"this model is no {name}; it is {' or '.join(names) or 'of no family'}")
    return FAMILIES[names.index(name)]


def _parts(found: Iterable[Pair]) -> dict[str, list[tuple[Pair, int | None]]]:
    """Every tensor of theirs with what it is made of, in order: tensors of ours, or one slice of one."""
    parts = defaultdict[str, list[tuple[Pair, int | None]]](list)
    for pair in found:
        for i, name in enumerate(pair.names):
            parts[name].append((pair, i if pair.stacked else None))
    return {name: sorted(members, key=lambda member: member[0].start) for name, members in parts.items()}


def _infos(model: Model) -> dict[str, Info]:
    return {name: Info(tensor.dtype, tuple(tensor.shape)) for name, tensor in checkpoint.stored(model)[0].items()}


def _weights(source: Path) -> Shards | Pickled:
    """The tensors of a directory, whole as far as its index and our manifest tell."""
    if (source / checkpoint.MANIFEST).is_file():
        checkpoint.verify(source, _strings(source / checkpoint.MANIFEST, "files"), "*")
    if (source / INDEX).is_file():
        files = sorted(set(_strings(source / INDEX, "weight_map").values()))
        absent = [name for name in files if Path(name).name != name or not (source / name).is_file()]
        if absent:
            raise CommandError(f"{source}: files named in {INDEX} are missing: {listed(absent)}")
        return Shards([source / name for name in files])
    known = dict.fromkeys([SAFETENSORS, *(family.weights for family in FAMILIES), "pytorch_model.bin"])
    for name in known:
        if (source / name).is_file():
            return Shards([source / name]) if name == SAFETENSORS else Pickled(source / name)
    raise CommandError(f"{source} holds neither {INDEX} nor {' nor '.join(known)}")


def _strings(path: Path, key: str) -> dict[str, str]:
    """The table of strings under a key of a JSON file."""
    table = read_json(path).get(key)
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise CheckpointError(f"{path}: {key} is not a table of strings")
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.hf", description="Checkpoints of other programs.")
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="from a directory of theirs")
    importing.add_argument("source", type=Path, metavar="THEIRS", help="or a file of torch.save")
    importing.add_argument("out", type=Path, metavar="OUT_DIR", help="gets the checkpoint step-000000")
    importing.add_argument("--allow", nargs="+", default=(), metavar="KEY", help="keys of their config that may differ")
    exporting = commands.add_parser("export", help="to a directory of theirs")
    exporting.add_argument("source", type=Path, metavar="CHECKPOINT_DIR", help="a checkpoint, or a run's --out")
    exporting.add_argument("out", type=Path, metavar="THEIRS")
    names = [family.name for family in FAMILIES]
    exporting.add_argument("--family", choices=names, help="as it was imported, or else the first, unless given")
    exporting.add_argument("--shard-gb", type=amount, default=SHARD_BYTES / 1e9, metavar="GB", help="most in a file")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)

    def action() -> int:
        if options.command == "import":
            path = import_hf(options.source, options.out, allow=options.allow)
        else:
            path = export_hf(
                options.source, options.out, family=options.family, shard_bytes=int(options.shard_gb * 1e9)
            )
        print(f"wrote {path}")
        return 0

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
