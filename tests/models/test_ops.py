"""Every operation that a package registers passes torch.library.opcheck, on the arguments that models call it with."""

from collections.abc import Iterator
from typing import Any

import pytest

from .cases import spec
from .packages import Package, Workshop

torch = pytest.importorskip("torch")

EVERYTHING = spec(
    "everything",
    "mlp swiglu(8)",
    "residual(dtype=fp32)",
    "block < mamba(d_state=4, inner_norm=rms), mamba(d_state=3, d_conv=3, conv_bias=false), "
    "attn gqa(4,2) window(3) qk_norm=rms rope > moe every 2 top2/3",
)

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
    """What tells two calls of an operation apart: which arguments are absent, the dimensions of the others."""
    return f"{func}{[a.dim() if isinstance(a, torch.Tensor) else a is None for a in flat(args)]}"


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


def check(uses: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> None:
    for func, args, kwargs in uses:
        torch.library.opcheck(func, differentiable(args) if func._opname.endswith("_fwd") else args, kwargs)


def test_operations_pass_opcheck(workshop: Workshop) -> None:
    """And what is checked is all that the package registers."""
    package = workshop(EVERYTHING)
    found = calls(package)
    prefix = f"{package.namespace}::"
    registered = {n.removeprefix(prefix) for n in torch._C._dispatch_get_all_op_names() if n.startswith(prefix)}
    assert registered == set(found)
    for uses in found.values():
        check(uses)


@pytest.mark.heavy
def test_operations_without_fused_neighbours_pass_opcheck(workshop: Workshop) -> None:
    for op, uses in calls(workshop(EVERYTHING, fuse=False)).items():
        if op.startswith(("selective_scan", "causal_conv1d")):
            check(uses)
