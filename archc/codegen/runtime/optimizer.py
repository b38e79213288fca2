"""AdamW (Loshchilov & Hutter, arXiv:1711.05101) with fp32 masters, a warm-up and cosine schedule, and exact resume.

A parameter that is narrower than fp32 has a master in fp32: AdamW moves the master, the parameter is its rounding.
Parameters of fp32 and wider are their own masters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .model import Model
from .shards import CheckpointError, listed

BETAS = (0.9, 0.95)  # Touvron et al. 2023, arXiv:2302.13971; Jamba and Mamba train with the same
EPS = 1e-8
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def learning_rate(step: int, *, peak: float, warmup: int, steps: int, floor: float = 0.1) -> float:
    """The rate of update `step` (from 0): linear to `peak` over `warmup`, then a cosine down to `floor * peak`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


class Optimizer:
    """AdamW over the model's trainable parameters; those of `model.no_decay()` are left out of weight decay."""

    def __init__(self, model: Model, *, weight_decay: float, clip: float):
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters = {name: _master(p) for name, p in self.parameters.items()}
        self._narrow = [name for name, p in self.parameters.items() if self.masters[name] is not p]
        self._clip = clip if clip > 0 else math.inf
        exempt = model.no_decay()
        ids = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if name in exempt}
        with_decay = [self.masters[name] for name, p in self.parameters.items() if id(p) not in ids]
        without = [self.masters[name] for name, p in self.parameters.items() if id(p) in ids]
        groups = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
        self._fused = all(p.device.type in ("cpu", "cuda") for p in self.parameters.values())
        self._adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=0.0, betas=BETAS, eps=EPS, fused=self._fused
        )

    def collect(self) -> None:
        """Add the gradients of narrow parameters up in fp32; to be called after every backward pass."""
        for name in self._narrow:
            parameter, master = self.parameters[name], self.masters[name]
            if parameter.grad is not None:
                master.grad = parameter.grad.float() if master.grad is None else master.grad.add_(parameter.grad)
                parameter.grad = None

    def step(self, lr: float) -> float:
        """Clip, move, round, clear the gradients; returns the norm of the gradient before clipping."""
        norm = nn.utils.clip_grad_norm_(list(self.masters.values()), self._clip)
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name in self._narrow:
                self.parameters[name].copy_(self.masters[name])
        return float(norm)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on besides the parameters, by name."""
        state = {f"master/{name}": self.masters[name] for name in self._narrow}
        for name, master in self.masters.items():
            moments = self._adamw.state.get(master, {})
            state |= {f"{key}/{name}": moments[key] for key in _MOMENTS if key in moments}
        return state

    def take_weights(self) -> None:
        """Start from the parameters as they are now, which something else has set."""
        with torch.no_grad():
            for name in self._narrow:
                self.masters[name].copy_(self.parameters[name])

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state()` gave."""
        self._check(state)
        with torch.no_grad():
            for name in self._narrow:
                self.masters[name].copy_(state[f"master/{name}"])
        for name, master in self.masters.items():
            if f"step/{name}" in state:
                step, *moments = (state[f"{key}/{name}"] for key in _MOMENTS)
                on_device = [moment.to(master.device, master.dtype) for moment in moments]
                step = step.to(master.device if self._fused else "cpu")
                self._adamw.state[master] = dict(zip(_MOMENTS, [step, *on_device], strict=True))

    def _check(self, state: Mapping[str, Tensor]) -> None:
        wanted = {f"master/{name}" for name in self._narrow}
        for name in self.parameters:
            if f"step/{name}" in state:
                wanted |= {f"{key}/{name}" for key in _MOMENTS}
        others = sorted(wanted ^ set(state))
        if any(name.startswith("master/") for name in others):
            raise CheckpointError("the optimizer's state was written under another --dtype; give the same")
        if others:
            raise CheckpointError("the optimizer's state is of other parameters: " + listed(others))
        for key, tensor in state.items():
            kind, name = key.split("/", 1)
            if kind != "step" and tensor.shape != self.masters[name].shape:
                raise CheckpointError(f"{key} has shape {list(tensor.shape)}, not {list(self.masters[name].shape)}")


def _master(parameter: nn.Parameter) -> Tensor:
    if parameter.dtype.itemsize >= 4:
        return parameter
    return parameter.detach().float().requires_grad_()
