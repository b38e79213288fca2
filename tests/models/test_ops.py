"""Every operation that a package registers passes torch.library.opcheck, on the arguments that models call it with."""

from collections.abc import Iterator
from typing import Any

import pytest

from .cases import KINDS, SHRUNK
from .packages import Package, Workshop

torch = pytest.importorskip("torch")

MODELS = {name: SHRUNK[name] for name in ("jamba_tiny", "mistral_7b_v0_1")}
MODELS |= {name: KINDS[name] for name in ("mamba_two_shapes", "moe_renormalised", "residual_fp32")}

B, T = 2, 6


def calls(package: Package) -> dict[str, list[tuple[Any, tuple[Any, ...], dict[str, Any]]]]:
    """The calls of each operation in training, packed training, and decoding from a cache; a few of each."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found: dict[str, list[tuple[Any, tuple[Any, ...], dict[str, Any]]]] = {}
    forms: set[str] = set()

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == package.namespace and form(func, args) not in forms:
                forms.add(form(func, args))
                found.setdefault(func._opname, []).append((func, copied(args), copied(kwargs or {})))
            return func(*args, **(kwargs or {}))

    model = package.make(torch.float32)
    tokens = torch.randint(package.module().VOCAB, (B, T))
    packed = torch.tensor([0, 1, 2, 0, 1, 2]).expand(B, T)
    with Recorder():
        for positions in (None, packed):
            model(tokens, positions=positions).square().mean().backward()
        cache = model.init_cache(batch=B, context=T)
        with torch.no_grad():
            model(tokens[:, :4], cache=cache)
            model(tokens[:, 4:5], cache=cache)
    return found


def form(func: Any, args: Any) -> str:
    """What tells two calls of an operation apart: the shapes of the arguments, and which are absent."""
    return f"{func}{[tuple(a.shape) if isinstance(a, torch.Tensor) else a is None for a in flat(args)]}"


def flat(value: Any) -> Iterator[Any]:
    for item in value:
        if isinstance(item, list | tuple):
            yield from flat(item)
        else:
            yield item


def copied(value: Any) -> Any:
    """Arguments as they stood, strides included."""
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage().clone()
        return torch.empty(0, dtype=value.dtype).set_(storage, value.storage_offset(), value.size(), value.stride())
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copied, value))
    return value


def differentiable(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.requires_grad_()
    if isinstance(value, list | tuple):
        return type(value)(map(differentiable, value))
    return value


@pytest.mark.parametrize("name", MODELS)
def test_operations_pass_opcheck(name: str, workshop: Workshop) -> None:
    package = workshop(MODELS[name])
    found = calls(package)
    assert {"rms_norm_fwd", "rms_norm_bwd"} <= set(found)
    for op, uses in found.items():
        for func, args, kwargs in uses[:3]:
            trained = op.endswith("_fwd")
            torch.library.opcheck(func, differentiable(args) if trained else args, kwargs)


def test_every_operation_of_a_package_is_called(workshop: Workshop) -> None:
    """What the checks above see is all that is registered."""
    registered, seen = set(), set()
    for text in MODELS.values():
        package = workshop(text)
        package.module()
        prefix = f"{package.namespace}::"
        registered |= {n[len(prefix) :] for n in torch._C._dispatch_get_all_op_names() if n.startswith(prefix)}
        seen |= set(calls(package))
    assert {op.split(".")[0] for op in registered} == seen
