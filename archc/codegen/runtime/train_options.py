"""What a training run can be told: the options of the command, and the command line that gives them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from .command import add_device_arguments, amount, count, natural
from .model import CONTEXT, NAME
from .recompute import Recompute


@dataclass(frozen=True, kw_only=True)
class Options:
    """A training run; the fields are the command's options."""

    data: tuple[str, ...]
    out: Path
    steps: int = 1000
    batch: int = 8
    length: int = min(CONTEXT, 512)
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    ids: str = "auto"
    dtype: str = "auto"
    device: str = "auto"
    compile: bool = False
    recompute: Recompute = "none"
    activation_penalty: float = 0.0
    grad_accumulation: int = 1
    eval_every: int = 200
    checkpoint_every: int = 500
    keep: int = 3
    resume: bool = False
    log_json: Path | None = None


def parser() -> argparse.ArgumentParser:
    """The command line; what it reads are the fields of `Options`."""
    default = Options(data=(), out=Path())
    made = argparse.ArgumentParser(prog=f"python -m {__package__}.train", description=f"Train {NAME}.")

    def option(name: str, kind: Callable[[str], object], text: str) -> None:
        value = getattr(default, name.replace("-", "_"))
        made.add_argument(f"--{name}", type=kind, default=value, metavar="N", help=f"{text} (default {value})")

    made.add_argument("--data", nargs="+", required=True, metavar="PATH", help="files, directories or globs")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="where checkpoints go")
    option("steps", count, "updates in the whole run")
    option("batch", count, "rows in a forward pass")
    option("length", count, "tokens in a row")
    option("grad-accumulation", count, "forward passes in an update")
    option("lr", amount, "peak learning rate")
    option("warmup", natural, "updates up to the peak")
    option("weight-decay", amount, "of the weights that the model gives to it")
    option("clip", amount, "the most norm a gradient may have; 0 never clips")
    option("activation-penalty", amount, "weight of the mean square of what each sublayer adds; Jamba-1.5 has 1e-5")
    option("seed", natural, "of the initial weights and of the order of the data")
    option("eval-every", natural, "updates between held-out losses; 0 measures at the end alone")
    option("checkpoint-every", natural, "updates between checkpoints; 0 writes at the end alone")
    option("keep", natural, "checkpoints kept; 0 keeps all")
    made.add_argument("--ids", choices=("auto", "uint16", "uint32"), default="auto", help="token ids in .bin files")
    made.add_argument("--compile", action="store_true", help="torch.compile the model")
    modes, text = get_args(Recompute), "what backward computes again, to need less memory (default none)"
    made.add_argument("--recompute", choices=modes, default=default.recompute, help=text)
    made.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    made.add_argument("--log-json", type=Path, metavar="FILE", help="append a line of JSON for every step")
    add_device_arguments(made)
    return made
