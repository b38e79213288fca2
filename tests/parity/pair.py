"""One model twice: transformers' own, and ours from the directory that it saved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archc import hub
from tests.models.packages import Package, Workshop

B, T = 2, 19
SHARD_SIZE = 2_000  # bytes: the tiny models lie in several files
MARGIN = 1e-5  # the least difference between the last chosen probability and the first that is not


@dataclass(frozen=True)
class Pair:
    """Their model in fp32 and the package that its config.json became; `folder` holds what they wrote."""

    theirs: Any
    package: Package
    folder: Path

    @classmethod
    def make(cls, config: Any, workshop: Workshop, folder: Path, *, noise: float = 0.1, embedding: float = 0.3) -> Pair:
        theirs = random_model(config, noise, embedding)
        theirs.save_pretrained(folder / "theirs", max_shard_size=SHARD_SIZE)
        spec = hub.import_config((folder / "theirs" / "config.json").read_text(), config.model_type)
        return cls(theirs, workshop(spec), folder)

    @property
    def n_files(self) -> int:
        """How many files their weights lie in."""
        return len(list((self.folder / "theirs").glob("*.safetensors")))

    def loaded(self, source: Path) -> Any:
        """Our model with what a directory of theirs holds."""
        model = self.package.module().Model()
        self.package.module("hf").load_hf(model, source)
        return model

    @cached_property
    def ours(self) -> Any:
        """Our model with their weights, by way of the checkpoint `run`."""
        path = self.package.module("hf").import_hf(self.folder / "theirs", self.folder / "run")
        model = self.package.module().Model()
        self.package.module("checkpoint").load(path, model)
        return model

    @cached_property
    def tokens(self) -> Tensor:
        """Tokens about whose experts rounding does not decide."""
        for seed in range(100):
            generator = torch.Generator().manual_seed(seed)
            tokens = torch.randint(self.theirs.config.vocab_size, (B, T), generator=generator)
            if router_margin(self.theirs, tokens) > MARGIN:
                return tokens
        raise AssertionError("every draw of tokens has a tie between experts")

    def exported(self) -> Any:
        """Their model again, from the directory that we write."""
        self.package.module("hf").export_hf(self.folder / "run", self.folder / "ours", shard_bytes=SHARD_SIZE)
        return load(self.folder / "ours")

    def gradients(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Ours and theirs under our names, of one random cotangent. Their model holds its gradients afterwards."""
        tokens = self.tokens
        cotangent = torch.randn(B, T, self.theirs.config.vocab_size, generator=torch.Generator().manual_seed(1))
        for model in (self.ours, self.theirs):
            (logits(model, tokens) * cotangent).sum().backward()
        with torch.no_grad():  # as weights, so that transformers itself writes them under the names of its files
            for parameter in self.theirs.parameters():
                parameter.copy_(gradient(parameter))
        self.theirs.save_pretrained(self.folder / "gradients", max_shard_size=SHARD_SIZE)
        theirs = self.loaded(self.folder / "gradients")
        ours = {name: gradient(parameter) for name, parameter in self.ours.named_parameters()}
        return ours, {name: parameter.detach() for name, parameter in theirs.named_parameters()}


def logits(model: Any, tokens: Tensor) -> Tensor:
    """The logits of either model, without a cache: transformers has none for a Jamba that lacks attention."""
    if hasattr(model, "init_cache"):
        found: Tensor = model(tokens)
    else:
        found = model(tokens, use_cache=False).logits
    return found


def gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def random_model(config: Any, noise: float, embedding: float) -> Any:
    """A model whose every parameter is away from zero and one, so that nothing cancels and nothing is left out.

    `embedding` is more noise there. Where the embedding stands above what a layer adds, as in trained models, rounding
    stays small; else eight layers with norms of a few channels make 1e-4 of it, and nobody could tell an error.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, **PLAIN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=noise)
        table = model.get_input_embeddings().weight
        table.add_(torch.randn_like(table), alpha=embedding)
    return model.eval()


def load(folder: Path) -> Any:
    """What transformers makes of a directory."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, **PLAIN).eval()


PLAIN = {"attn_implementation": "eager", "experts_implementation": "eager", "dtype": torch.float32}


def router_margin(model: Any, tokens: Tensor) -> float:
    """The smallest difference of two probabilities that decides about an expert; infinity without a choice."""
    margins = [float("inf")]

    def watch(router: Any, _: object, outputs: tuple[Tensor, ...]) -> None:
        probabilities = outputs[0].softmax(-1).sort(-1, descending=True).values
        if router.top_k < probabilities.shape[-1]:
            chosen, left = probabilities[..., router.top_k - 1], probabilities[..., router.top_k]
            margins.append(float((chosen - left).min()))

    routers = [module for module in model.modules() if type(module).__name__.endswith("TopKRouter")]
    handles = [router.register_forward_hook(watch) for router in routers]
    with torch.no_grad():
        logits(model, tokens)
    for handle in handles:
        handle.remove()
    assert len(margins) > 1 or not routers or all(r.top_k == r.num_experts for r in routers)
    return min(margins)


def difference(a: Tensor, b: Tensor) -> float:
    """max|a-b| / max|b|; 0 where both are nothing but zeros."""
    assert a.shape == b.shape
    error = float((a.double() - b.double()).abs().max())
    return error / float(b.double().abs().max()) if error else 0.0
