"""One model twice: transformers' own, and ours from the directory that it saved."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from archc import hub
from tests.models.packages import Package, Workshop

from .double import Double

B, T = 2, 19
SHARD_SIZE = 2_000  # bytes: the tiny models lie in several files
DRAWS, STEADY = 24, 2.5e-6  # models, and the relative rounding of fp32 in transformers that ends the search
MARGIN = 1e-5  # the least difference between the last chosen probability and the first that is not


@dataclass(frozen=True)
class Pair:
    """Their model in fp32 and the package that its config.json became; `folder` holds what they wrote."""

    theirs: Any
    package: Package
    folder: Path

    @classmethod
    def make(
        cls,
        config: Any,
        workshop: Workshop,
        folder: Path,
        *,
        noise: float = 0.1,
        embedding: float = 0.3,
        steady: bool = True,
    ) -> Pair:
        """The model of a configuration, its gradients worth comparing in float32 if it is to be `steady`."""
        theirs = (steady_model if steady else random_model)(config, noise, embedding)
        theirs.save_pretrained(folder / "theirs", max_shard_size=SHARD_SIZE)
        spec = hub.import_config((folder / "theirs" / "config.json").read_text(), config.model_type)
        return cls(theirs, workshop(spec), folder)

    @property
    def n_files(self) -> int:
        """How many files their weights lie in."""
        return len(list((self.folder / "theirs").glob("*.safetensors")))

    def loaded(self, source: Path, dtype: torch.dtype = torch.float32) -> Any:
        """Our model with what a directory of theirs holds."""
        model = self.package.module().Model().to(dtype)
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
            tokens = some_tokens(self.theirs, seed)
            if router_margin(self.theirs, tokens) > MARGIN:
                return tokens
        raise AssertionError("every draw of tokens has a tie between experts")

    def exported(self) -> Any:
        """Their model again, from the directory that we write."""
        self.package.module("hf").export_hf(self.folder / "run", self.folder / "ours", shard_bytes=SHARD_SIZE)
        return load(self.folder / "ours")

    def logits(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Ours and theirs."""
        with torch.no_grad():
            return tuple(run(model, self.tokens) for model in self.both(dtype))  # type: ignore[return-value]

    def both(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """Copies of our model and theirs that compute in `dtype`."""
        return copy.deepcopy(self.ours).to(dtype), in_type(self.theirs, dtype)

    def gradients(self, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Ours and theirs under our names, of one random cotangent."""
        ours, theirs = self.both(dtype)
        for model in (ours, theirs):
            backward(model, self.tokens)
        with torch.no_grad():  # as weights, so that transformers itself writes them under the names of its files
            for parameter in theirs.parameters():
                parameter.copy_(gradient(parameter))
        folder = self.folder / f"gradients {dtype}"
        theirs.save_pretrained(folder, max_shard_size=SHARD_SIZE)
        loaded = self.loaded(folder, dtype)
        found = {name: gradient(parameter) for name, parameter in ours.named_parameters()}
        return found, {name: parameter.detach() for name, parameter in loaded.named_parameters()}


def run(model: Any, tokens: Tensor) -> Tensor:
    """The logits of either model, without a cache: transformers has none for a Jamba that lacks attention."""
    if hasattr(model, "init_cache"):
        found: Tensor = model(tokens)
        return found
    with Double() if model.dtype == torch.float64 else nullcontext():
        found = model(tokens, use_cache=False).logits
    return found


def backward(model: Any, tokens: Tensor) -> None:
    """Gradients of either model, of a random cotangent; of what is one as published their sum."""
    logits = run(model, tokens)
    cotangent = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (logits * cotangent).sum().backward()
    for blocks in repeated(model):
        for same in zip(*(block.parameters() for block in blocks), strict=True):
            total = torch.stack([gradient(parameter) for parameter in same]).sum(0)
            for parameter in same:
                parameter.grad = total


def gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def steady_model(config: Any, noise: float, embedding: float) -> Any:
    """Of a few random models the first whose gradients transformers itself gets right in fp32, as float64 tells.

    A gradient that is a sum of large terms, as that of a head's dt_bias over all tokens, may be next to nothing. Then
    two orders of the same sum differ by more than any tolerance that could tell an error.
    """
    drawn = []
    for seed in range(DRAWS):
        model = random_model(config, noise, embedding, seed)
        drawn.append((rounding(model), seed, model))
        if drawn[-1][0] < STEADY:
            break
    return min(drawn)[2]


def rounding(model: Any) -> float:
    """The largest relative error of any gradient of theirs in float32, against float64."""
    tokens = some_tokens(model, 0)
    narrow, wide = (in_type(model, dtype) for dtype in (torch.float32, torch.float64))
    for one in (narrow, wide):
        backward(one, tokens)
    exact = dict(wide.named_parameters())
    return max(
        difference(*both)
        for name, own in narrow.named_parameters()
        for both in zip(*(parts(name, gradient(one)) for one in (own, exact[name])), strict=True)
    )


def parts(name: str, tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors of ours that one of theirs holds."""
    return tensor.chunk(2) if "gate_up_proj." in name else (tensor,)


def some_tokens(model: Any, seed: int) -> Tensor:
    return torch.randint(model.config.vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


def in_type(model: Any, dtype: torch.dtype) -> Any:
    """A copy of transformers' model in `dtype`, the frequencies of its rotary positions too."""
    found = copy.deepcopy(model).to(dtype)
    if dtype == torch.float64:
        for module in found.modules():
            if hasattr(module, "inv_freq"):
                with Double():
                    module.inv_freq = type(module)(found.config).inv_freq
    return found


def random_model(config: Any, noise: float, embedding: float, seed: int = 0) -> Any:
    """A model whose every parameter is away from zero and one, so that nothing cancels and nothing is left out.

    `embedding` is more noise there. Where the embedding stands above what a layer adds, as in trained models, rounding
    stays small; else eight layers with norms of a few channels make 1e-4 of it, and nobody could tell an error.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, **PLAIN)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter), alpha=noise)
            if name.endswith("dt_bias"):  # Mamba-2's group norm undoes D where next to nothing comes from the state
                parameter.normal_()
                model.get_parameter(name.replace("dt_bias", "D")).mul_((0.3, 0.1, 1.0)[seed % 3])
        table = model.get_input_embeddings().weight
        table.add_(torch.randn_like(table), alpha=embedding)
        for first, *others in repeated(model):
            for block in others:
                block.load_state_dict(first.state_dict())
    return as_published(model.eval())


def load(folder: Path) -> Any:
    """What transformers makes of a directory."""
    import transformers

    return as_published(transformers.AutoModelForCausalLM.from_pretrained(folder, **PLAIN).eval())


def as_published(model: Any) -> Any:
    """`model` without the least dt that transformers alone has, in Zamba2 and Nemotron-H and in whole sequences."""
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (0.0, float("inf"))
    return model


def repeated(model: Any) -> list[list[Any]]:
    """The blocks that are one as published, where transformers shares none since it ties no embedding."""
    if not hasattr(model, "config") or model.config.tie_word_embeddings:
        return []
    names = ("shared_transf", "shared_transformer")
    blocks = [block for layer in model.modules() for name, block in layer.named_children() if name in names]
    n_copies = getattr(model.config, "num_mem_blocks", 1)
    return [list(dict.fromkeys(blocks[copy::n_copies])) for copy in range(n_copies)] if blocks else []


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
        run(model, tokens)
    for handle in handles:
        handle.remove()
    assert len(margins) > 1 or not routers or all(r.top_k == r.num_experts for r in routers)
    return min(margins)


def difference(a: Tensor, b: Tensor) -> float:
    """max|a-b| / max|b|; 0 where both are nothing but zeros."""
    assert a.shape == b.shape
    error = float((a.double() - b.double()).abs().max())
    return error / float(b.double().abs().max()) if error else 0.0
