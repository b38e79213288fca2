"""What a training step keeps in memory between its forward and its backward pass, storage by storage.

Counted are the distinct storages that operations create in forward and that are alive after it: what autograd saved,
and the inputs of layers that will be computed again. Parameters, tokens and the loss are none of them. On the meta
device nothing is allocated, and shapes are those of a GPU.
"""

import gc
from typing import Any

from torch import Tensor
from torch.multiprocessing import reductions
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .loss import cross_entropy
from .model import Model

_weak_reference: Any = reductions.StorageWeakRef  # torch leaves it untyped


class Created(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers every storage that an operation creates, by the stage in which it did."""

    def __init__(self, model: Model) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stage = 0
        self.found: dict[int, tuple[Any, int, int]] = {}  # by address: storage, bytes, stage
        self.known = {_address(parameter) for parameter in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and _address(leaf) not in taken | self.known:
                storage = leaf.untyped_storage()
                # A weak reference keeps the address from being used again.
                self.found.setdefault(_address(leaf), (_weak_reference(storage), storage.nbytes(), self.stage))
        return out

    def alive(self, stages: int) -> list[int]:
        """Bytes that are alive now, by the stage that created them."""
        gc.collect()
        totals = [0] * stages
        for reference, n_bytes, stage in self.found.values():
            totals[stage] += 0 if reference.expired() else n_bytes
        return totals


def saved_activations(model: Model, tokens: Tensor, targets: Tensor, *, positions: Tensor | None = None) -> list[int]:
    """Bytes kept for backward: of the embedding, of each layer, of the norm and the head, and of the loss.

    tokens, targets and positions are `[B, T]`, on the device of the model. A storage belongs to where it was created;
    what a model does between two layers belongs to the second.
    """
    created = Created(model)

    def reach(stage: int) -> Any:
        def hook(*_: object) -> None:
            created.stage = stage

        return hook

    hooks = [model.layers[0].register_forward_pre_hook(reach(1))]
    hooks += [layer.register_forward_hook(reach(i)) for i, layer in enumerate(model.layers, 2)]
    try:
        with created:
            logits = model(tokens, positions=positions)
            created.stage += 1
            loss = cross_entropy(logits, targets)
            del logits
    finally:
        for hook in hooks:
            hook.remove()
    del created.found[_address(loss)]
    return created.alive(len(model.layers) + 3)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
