"""Hugging Face checkpoints in and out, one tensor at a time.

    python -m PACKAGE.hf import HF_DIR OUT_DIR         a checkpoint to train or generate from
    python -m PACKAGE.hf export CHECKPOINT_DIR HF_DIR  a directory that transformers loads

hub.py has the family's names and configuration, hf_names.py reads them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import checkpoint
from .command import CommandError, amount, guarded
from .hf_names import Pair, lines, pairs, tied_names
from .hub import ALIKE, CONFIG, FAMILY, REPHRASED
from .model import Model
from .shards import CheckpointError, Info, Shards, Source, Written, listed, write_bytes, write_shards

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9  # what transformers writes

# Keys of config.json that do not change what the weights compute.
INERT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "initializer_range",
        "num_logits_to_keep",
        "output_router_logits",
        "pad_token_id",
        "pretraining_tp",
        "router_aux_loss_coef",
        "torch_dtype",
        "transformers_version",
        "use_associative_scan",
        "use_cache",
        "use_mamba_kernels",
        "use_mambapy",
    }
)
_DERIVED = re.compile(r"(^|\.)rotary_emb\.inv_freq$")  # stored by old versions; follows from the configuration


def import_hf(source: Path, out: Path, *, allow: Iterable[str] = ()) -> Path:
    """Write a checkpoint of step 0 from a Hugging Face directory; returns the checkpoint's directory."""
    if checkpoint.steps(out):
        raise CommandError(f"{out} holds checkpoints already")
    model = checkpoint.empty(torch.device("meta"), torch.float32)
    shards, found = _opened(source, model, allow)

    def pieces(pair: Pair) -> Callable[[], Iterator[Tensor]]:
        return lambda: (pair.from_theirs(shards.read(name, pair.rows)) for name in pair.theirs)

    sources = {}
    for pair in found:
        dtypes = {shards.info(name).dtype for name in pair.theirs}
        if len(dtypes) > 1:
            raise CheckpointError(f"{source}: the experts of {pair.ours} have several dtypes")
        sources[pair.ours] = Source(Info(dtypes.pop(), pair.info.shape), pieces(pair))
    return checkpoint.write(out, 0, sources, tied=checkpoint.stored(model)[1], run={"imported": FAMILY})


def load_hf(model: Model, source: Path, *, allow: Iterable[str] = ()) -> None:
    """Load a Hugging Face directory into the model in place, on its device and in its dtypes."""
    shards, found = _opened(source, model, allow)
    tensors, _ = checkpoint.stored(model)
    with torch.no_grad():
        for pair in found:
            for i, name in enumerate(pair.theirs):
                target = tensors[pair.ours]
                (target[i] if pair.stacked else target).copy_(pair.from_theirs(shards.read(name, pair.rows)))


def export_hf(source: Path, out: Path, *, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write a Hugging Face directory from a checkpoint; returns it."""
    if FAMILY is None:
        raise CommandError("no Hugging Face family computes what this model computes")
    if out.exists():
        raise CommandError(f"{out} exists already")
    path = checkpoint.find(source)
    model = checkpoint.empty(torch.device("meta"), torch.float32)
    _, shards = checkpoint.open_weights(path, model)

    def pieces(parts: list[tuple[Pair, int | None]]) -> Callable[[], Iterator[Tensor]]:
        return lambda: (pair.to_theirs(shards.read(pair.ours, index)) for pair, index in parts)

    sources, dtypes = {}, Counter[torch.dtype]()
    for name, parts in _parts(pairs(_infos(model))).items():
        dtype, *others = {shards.info(pair.ours).dtype for pair, _ in parts}
        if others:
            raise CheckpointError(f"{source}: the parts of {name} have several dtypes")
        sources[name] = Source(Info(dtype, parts[0][0].their_shape), pieces(parts))
        dtypes[dtype] += sources[name].info.n_bytes
    config = {**CONFIG, "dtype": str(dtypes.most_common(1)[0][0]).removeprefix("torch.")}
    with checkpoint.appearing(out) as folder:
        files = write_shards(folder, "model", sources, shard_bytes=shard_bytes)
        if len(files) > 1:
            places = {name: file for file, written in files.items() for name in written.names}
            total = sum(source.info.n_bytes for source in sources.values())
            files[INDEX] = _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
        files["config.json"] = _write_json(folder / "config.json", config)
        _write_json(folder / checkpoint.MANIFEST, {"files": checkpoint.hashes(files)})
    return out


def _opened(source: Path, model: Model, allow: Iterable[str]) -> tuple[Shards, list[Pair]]:
    """Their tensors and how they pair with ours, after configuration, names and shapes have proved to be right."""
    if FAMILY is None:
        raise CommandError("no Hugging Face family computes what this model computes")
    if not source.is_dir():
        raise CommandError(f"{source} is not a directory")
    _compare_config(source, frozenset(allow))
    shards = Shards(_files(source))
    found = pairs(_infos(model))
    wanted = dict.fromkeys(name for pair in found for name in pair.names)
    shapes = {name: pair.their_shape for pair in found for name in (*pair.names, *pair.perhaps)}
    tied = tied_names(checkpoint.stored(model)[1])
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
    return shards, found


def _parts(found: Iterable[Pair]) -> dict[str, list[tuple[Pair, int | None]]]:
    """Every tensor of theirs with what it is made of, in order: tensors of ours, or one slice of one."""
    parts = defaultdict[str, list[tuple[Pair, int | None]]](list)
    for pair in found:
        for i, name in enumerate(pair.names):
            parts[name].append((pair, i if pair.stacked else None))
    return {name: sorted(members, key=lambda member: member[0].start) for name, members in parts.items()}


def _infos(model: Model) -> dict[str, Info]:
    return {name: Info(tensor.dtype, tuple(tensor.shape)) for name, tensor in checkpoint.stored(model)[0].items()}


def _files(source: Path) -> list[Path]:
    """The safetensors files of a Hugging Face directory, whole as far as its index and our manifest tell."""
    if (source / checkpoint.MANIFEST).is_file():
        checkpoint.verify(source, _strings(source / checkpoint.MANIFEST, "files"), "*")
    if not (source / INDEX).is_file():
        if not (source / "model.safetensors").is_file():
            raise CommandError(f"{source} holds neither model.safetensors nor {INDEX}")
        return [source / "model.safetensors"]
    files = sorted(set(_strings(source / INDEX, "weight_map").values()))
    absent = [name for name in files if Path(name).name != name or not (source / name).is_file()]
    if absent:
        raise CommandError(f"{source}: files named in {INDEX} are missing: {listed(absent)}")
    return [source / name for name in files]


def _compare_config(source: Path, allow: frozenset[str]) -> None:
    """Raise if their config.json says something else on a key that both have than ours does, or one of its family."""
    if not (source / "config.json").is_file():
        raise CommandError(f"{source} holds no config.json")
    config = _read_json(source / "config.json")
    theirs, ours = _comparable(config), _comparable({**CONFIG, **ALIKE.get(str(config.get("model_type")), {})})
    different = [
        f"{key}: {theirs[key]!r} there, {ours[key]!r} here"
        for key in sorted(theirs.keys() & ours.keys() - INERT - REPHRASED - allow)
        if theirs[key] != ours[key]
    ]
    if different:
        raise CheckpointError(f"{source} is configured for another model\n" + "\n".join(different))


def _comparable(config: Mapping[str, object]) -> dict[str, object]:
    """The configuration in one form, whichever version of transformers wrote it: rope's keys have moved."""
    flat = {key: value for key, value in config.items() if key not in ("rope_parameters", "rope_scaling")}
    flat["rope_type"] = "default"
    for key in ("rope_scaling", "rope_parameters"):  # of 4.x and of 5.x
        inner = config.get(key)
        if isinstance(inner, dict):
            flat |= {f"rope_{name.removeprefix('rope_')}": value for name, value in inner.items()}
    for key in ("head_dim", "num_key_value_heads"):
        if flat.get(key) is None:  # stands for what follows from num_attention_heads, which the shapes show
            flat.pop(key, None)
    return flat


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return content


def _strings(path: Path, key: str) -> dict[str, str]:
    """The table of strings under a key of a JSON file."""
    table = _read_json(path).get(key)
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise CheckpointError(f"{path}: {key} is not a table of strings")
    return table


def _write_json(path: Path, content: Mapping[str, object]) -> Written:
    return write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.hf", description=f"Checkpoints of {FAMILY}.")
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="from a Hugging Face directory")
    importing.add_argument("source", type=Path, metavar="HF_DIR")
    importing.add_argument("out", type=Path, metavar="OUT_DIR", help="gets the checkpoint step-000000")
    importing.add_argument("--allow", nargs="+", default=(), metavar="KEY", help="keys of config.json that may differ")
    exporting = commands.add_parser("export", help="to a Hugging Face directory")
    exporting.add_argument("source", type=Path, metavar="CHECKPOINT_DIR", help="a checkpoint, or a run's --out")
    exporting.add_argument("out", type=Path, metavar="HF_DIR")
    exporting.add_argument("--shard-gb", type=amount, default=SHARD_BYTES / 1e9, metavar="GB", help="most in a file")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)

    def action() -> int:
        if options.command == "import":
            path = import_hf(options.source, options.out, allow=options.allow)
        else:
            path = export_hf(options.source, options.out, shard_bytes=int(options.shard_gb * 1e9))
        print(f"wrote {path}")
        return 0

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
