"""Whether the configuration beside their tensors is that of this model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .command import CommandError
from .hf_family import Family
from .shards import CheckpointError, Written, write_bytes

# Keys that do not change what the weights compute.
INERT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "chunk_size",
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
# null stands for what follows from the number of heads, which the shapes show.
FOLLOWS = ("head_dim", "num_key_value_heads", "attn_cfg.head_dim", "attn_cfg.num_heads_kv")
ROPE = ("rope_theta", "rope_type", "partial_rotary_factor")  # named as in 4.x, where they stand by themselves


def read_config(folder: Path, families: tuple[Family, ...]) -> dict[str, Any]:
    """The configuration of a directory, under whichever name a family gives it."""
    names = dict.fromkeys(family.config_file for family in families)
    for name in names:
        if (folder / name).is_file():
            return read_json(folder / name)
    raise CommandError(f"{folder} holds no {' or '.join(names)}")


def compare_config(source: Path, config: Mapping[str, object], family: Family, allow: frozenset[str]) -> None:
    """Raise if theirs says something else on a key that both have than the family's does."""
    theirs, ours = _comparable(config), _comparable(family.config)
    different = [
        f"{key}: {theirs[key]!r} there, {ours[key]!r} here"
        for key in sorted(theirs.keys() & ours.keys() - INERT - {*family.rephrased} - allow)
        if theirs[key] != ours[key]
    ]
    if different:
        raise CheckpointError(f"{source} is configured for another model\n" + "\n".join(different))


def _comparable(config: Mapping[str, object]) -> dict[str, object]:
    """The configuration in one form, whichever version of transformers wrote it: rope's keys have moved."""
    flat = dict(_flat({key: value for key, value in config.items() if key not in ("rope_parameters", "rope_scaling")}))
    flat["rope_type"] = "default"
    for key in ("rope_scaling", "rope_parameters"):  # of 4.x and of 5.x
        inner = config.get(key)
        if isinstance(inner, Mapping):
            flat |= {name if name in ROPE else f"rope_{name}": value for name, value in inner.items()}
    share, width = flat.get("partial_rotary_factor"), _head_width(flat)
    if isinstance(share, float) and width:
        flat["partial_rotary_factor"] = int(share * width)  # in dimensions, to which transformers rounds it down
    for key in FOLLOWS:
        if flat.get(key) is None:
            flat.pop(key, None)
    return flat


def _head_width(flat: Mapping[str, object]) -> int:
    """The width of a head, as far as it is said."""
    width, d_model, n_heads = (flat.get(key) for key in ("head_dim", "hidden_size", "num_attention_heads"))
    if isinstance(width, int):
        return width
    return d_model // n_heads if isinstance(d_model, int) and isinstance(n_heads, int) else 0


def _flat(config: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Every key, those of a dictionary as `outer.inner`."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", inner_value) for inner, inner_value in value.items())
        else:
            yield key, value


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return content


def write_json(path: Path, content: Mapping[str, object]) -> Written:
    """Write a JSON object."""
    return write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
