"""Run as a program: imports packages one after another and describes their models on the meta device, as JSON.

Arguments: the folder of the packages, then `package:context` for each. Nothing is allocated, however large the models.
"""

import importlib
import json
import sys
import time

import torch


def describe(package: str, context: int) -> dict[str, object]:
    module = importlib.import_module(f"{package}.model")
    started = time.perf_counter()
    with torch.device("meta"):
        model = module.Model()
    seconds = time.perf_counter() - started
    caches = {batch: model.init_cache(batch, context, dtype=torch.bfloat16) for batch in (1, 3)}
    assert all(tensor.is_meta for cache in caches.values() for tensor in cache._tensors())
    return {
        "tensors": {name: list(parameter.shape) for name, parameter in model.named_parameters()},
        "buffers": [name for name, _ in model.named_buffers()],
        "stored": sorted(model.state_dict()),
        "cache_bytes": {batch: cache.nbytes for batch, cache in caches.items()},
        "cache_elements": sum(tensor.numel() for tensor in caches[1]._tensors()),
        "no_decay": sorted(model.no_decay()),
        "keep_fp32": sorted(model.keep_fp32()),
        "seconds": seconds,
    }


if __name__ == "__main__":
    folder, *packages = sys.argv[1:]
    sys.path.insert(0, folder)
    described = {}
    for argument in packages:
        package, _, context = argument.partition(":")
        described[package] = describe(package, int(context))
    json.dump(described, sys.stdout)
