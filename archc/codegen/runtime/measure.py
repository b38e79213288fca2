"""Measure this model: python -m PACKAGE.measure --batch 2 --context 4096 --dtype bfloat16.

Parameters, cache, FLOPs and saved activations are those of the meta device: nothing is allocated, however large the
model. With `--step` a CUDA device that has enough memory free also makes training steps, for their peak and their time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median
from typing import get_args

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .command import count, guarded, natural
from .loss import cross_entropy
from .model import NAME, VOCAB, Model
from .optimizer import Optimizer
from .precision import cast_
from .recompute import Recompute
from .saved import saved_activations

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
WARM, TIMED = 3, 10  # training steps before the clock runs, and with it


def sizes(batch: int, context: int, dtype: torch.dtype) -> dict[str, object]:
    """What `batch` sequences of `context` tokens take, in numbers and bytes.

    `saved_bytes` are for each mode of recomputation the bytes of the embedding, each layer, the head and the loss.
    """
    with torch.device("meta"):
        model = Model()
        tokens = torch.zeros(batch, context, dtype=torch.int64)
    cast_(model, dtype, model.keep_fp32())
    forward, backward = _flops(model, tokens)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "parameter_bytes": sum(parameter.nbytes for parameter in model.parameters()),
        "cache_bytes": model.init_cache(batch, context).nbytes,
        "forward_flops": forward,
        "backward_flops": backward,
        "saved_bytes": {mode: _saved(model, tokens, mode) for mode in get_args(Recompute)},
    }


def _flops(model: Model, tokens: Tensor) -> tuple[int, int]:
    with FlopCounterMode(display=False) as forward:
        loss = cross_entropy(model(tokens), tokens)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.backward(loss)
    model.zero_grad()
    return forward.get_total_flops(), backward.get_total_flops()


def _saved(model: Model, tokens: Tensor, mode: Recompute) -> list[int]:
    model.recompute = mode
    return saved_activations(model, tokens, tokens)


def step(batch: int, context: int, dtype: torch.dtype, mode: Recompute) -> dict[str, object]:
    """The peak memory and the median time of a training step, the optimizer's among it, on the current CUDA device."""
    with torch.device("cuda"):
        model = Model()
        tokens = torch.randint(VOCAB, (batch, context))
    cast_(model, dtype, model.keep_fp32())
    model.recompute = mode
    optimizer, seconds = Optimizer(model, weight_decay=0.1, clip=1.0), []
    for turn in range(WARM + TIMED):
        if turn == WARM:
            torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        started = time.perf_counter()
        torch.autograd.backward(cross_entropy(model(tokens), tokens))
        optimizer.collect()
        optimizer.step(1e-5)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {
        "device": torch.cuda.get_device_name(),
        "recompute": mode,
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "step_seconds": median(seconds[WARM:]),
    }


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.measure", description=f"Measure {NAME}, as JSON.")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="sequences (default 1)")
    parser.add_argument("--context", type=count, required=True, metavar="N", help="tokens in a sequence")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of the parameters (default bfloat16)")
    parser.add_argument("--step", choices=get_args(Recompute), help="make training steps, recomputing so much")
    parser.add_argument("--free", type=natural, default=0, metavar="BYTES", help="that steps must find free")
    chosen = parser.parse_args(arguments)
    wanted = chosen.batch, chosen.context, DTYPES[chosen.dtype]

    def action() -> int:
        found = sizes(*wanted)
        if chosen.step and torch.cuda.is_available() and torch.cuda.mem_get_info()[0] >= chosen.free:
            found["step"] = step(*wanted, chosen.step)
        print(json.dumps(found, indent=2))
        return 0

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
