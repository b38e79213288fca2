"""One way in which others store this model: names, configuration and files. hub.py has all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SAFETENSORS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Family:
    """`rows` are tensors of ours and theirs as hf_names.py reads them, `uses` (layer, copy) of each shared module.

    Keys of `rephrased` may be said in other words in `config_file`; names and shapes of tensors show what is meant.
    `weights` is a file of safetensors, which may be split, or else one of torch.save.
    """

    name: str
    config: Mapping[str, object]
    rows: tuple[tuple[str, str], ...]
    rephrased: tuple[str, ...] = ()
    uses: tuple[tuple[int, int], ...] = ()
    config_file: str = "config.json"
    weights: str = SAFETENSORS
