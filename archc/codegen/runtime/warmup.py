"""Compile the kernels before they are needed: python -m PACKAGE.warmup --batch 4 --length 4096.

Triton compiles a kernel when it is first called, and keeps it on disk. The first passes at the sizes of a run, a
training step and, with `--generate`, a prompt and a token behind it, fill that cache, and leave nothing to compile when
the run starts. Says how long they took, and how long they take once everything is compiled.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

from .command import add_device_arguments, choose, count, guarded
from .loss import cross_entropy
from .model import NAME, VOCAB, Model
from .precision import cast_


def warm(model: Model, batch: int, length: int, *, generate: bool = False) -> tuple[float, float]:
    """Return the seconds of the first passes and of the second, `batch` sequences of `length` tokens each.

    Raises ValueError where `generate` would pass the model's context.
    """
    device = next(model.parameters()).device
    tokens = torch.randint(VOCAB, (batch, length), device=device)

    def train() -> None:
        torch.autograd.backward(cross_entropy(model(tokens), tokens))
        model.zero_grad()

    @torch.no_grad()
    def prompt() -> None:
        cache = model.init_cache(batch, length + 1, device=device)
        model(tokens, cache=cache)
        model(tokens[:, :1], cache=cache)

    passes = [train, prompt] if generate else [train]
    return _seconds(passes, device), _seconds(passes, device)


def _seconds(passes: list[Callable[[], None]], device: torch.device) -> float:
    start = time.monotonic()
    for run in passes:
        run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - start


def run(options: argparse.Namespace) -> int:
    """Warm up as the options say."""
    device, dtype = choose(options.device, options.dtype)
    with torch.device(device):
        model = Model()
    model.init_weights()
    cast_(model, dtype, model.keep_fp32())
    first, second = warm(model, options.batch, options.length, generate=options.generate)
    print(f"{NAME} on {device}, {options.batch} x {options.length}: first passes {first:.2f} s, then {second:.2f} s")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.warmup", description=f"Compile {NAME}'s kernels.")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="sequences (default 1)")
    parser.add_argument("--length", type=count, default=1024, metavar="N", help="tokens of each (default 1024)")
    parser.add_argument("--generate", action="store_true", help="the kernels of generation too")
    add_device_arguments(parser)
    options = parser.parse_args(arguments)
    return guarded(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
