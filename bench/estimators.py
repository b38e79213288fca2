"""Public estimators from PyPI beside archc, on the same models: parameters, forward FLOPs, and the KV cache.

    pip install thop ptflops llm-analysis fire termcolor
    python bench/estimators.py

thop and ptflops count a model of transformers while it runs; llm-analysis reckons from the numbers of a configuration,
which is filled in as its user would. Truth is what transformers stores (parameters, and keys and values after a
prompt), and for FLOPs the matrices and visible pairs of our model FLOPs. All count a multiply-add as 2 here.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import transformers

from archc import compiler
from archc.diagnostics import Source
from archc.passes.workload import Workload

TOKENS = 256
TOOLS = ("thop", "ptflops", "llm_analysis")


@dataclass(frozen=True)
class Figures:
    """None where a tool does not say."""

    parameters: int | None = None
    flops: int | None = None
    kv_bytes: int | None = None


@dataclass(frozen=True)
class Case:
    """A spec, and the class and configuration of the same model in transformers."""

    name: str
    spec: str
    model: str
    config: str
    fields: dict[str, Any]


CASES = (
    Case(
        "llama",
        "vocab 32000; d_model 1024; mlp swiglu(2816); block x8 < attn gqa(8,2) rope(theta=1e4) >",
        "LlamaForCausalLM",
        "LlamaConfig",
        {"num_hidden_layers": 8, "hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 8}
        | {"num_key_value_heads": 2, "vocab_size": 32000},
    ),
    Case(
        "mamba",
        "vocab 50280; d_model 768; mlp none; tied; block x24 < mamba >",
        "MambaForCausalLM",
        "MambaConfig",
        {"num_hidden_layers": 24, "hidden_size": 768, "vocab_size": 50280},
    ),
    Case(
        "mamba2",
        "vocab 50288; d_model 768; mlp none; tied; block x12 < mamba2(n_heads=24) >",
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {"num_hidden_layers": 12, "hidden_size": 768, "vocab_size": 50288, "num_heads": 24, "n_groups": 1}
        | {"tie_word_embeddings": True},
    ),
    Case(
        "jamba",
        "vocab 32000; d_model 512; mlp swiglu(1024); let mamba = mamba(inner_norm=rms)"
        "; block x2 < mamba x4, attn gqa(8,2), mamba x3 > moe every 2 top2/4",
        "JambaForCausalLM",
        "JambaConfig",
        {"num_hidden_layers": 16, "hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8}
        | {"num_key_value_heads": 2, "vocab_size": 32000, "num_experts": 4, "num_experts_per_tok": 2},
    ),
)


def main() -> int:
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    missing = [tool for tool in TOOLS if find_spec(tool) is None]
    if missing:
        print(f"not installed, and so not compared: {', '.join(missing)}")
    print(f"one sequence of {TOKENS} tokens; what a tool does not say is left empty")
    print("| model | tool | parameters | error | forward FLOPs | error | KV bytes, bf16 | error |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for case in CASES:
        truth, ours = of_truth(case), of_archc(case)
        truth = Figures(truth.parameters, ours.flops, truth.kv_bytes)
        rows: list[tuple[str, Callable[[Case], Figures]]] = [("archc", of_archc)]
        rows += [(tool, globals()[f"of_{tool}"]) for tool in TOOLS if tool not in missing]
        for tool, of in rows:
            cells = [cell for pair in zip(_values(of(case)), _values(truth), strict=True) for cell in _cells(*pair)]
            print(f"| {case.name} | {tool} | {' | '.join(cells)} |", flush=True)
    return 1 if missing else 0


def _values(figures: Figures) -> tuple[int | None, ...]:
    return figures.parameters, figures.flops, figures.kv_bytes


def _cells(value: int | None, truth: int | None) -> Iterator[str]:
    yield "" if value is None else f"{value:,}"
    wrong = None if value is None or truth is None else (value / truth - 1 if truth else float(value > 0))
    yield "" if wrong is None else "exact" if value == truth else "of none" if not truth else f"{100 * wrong:+.1f}%"


def of_archc(case: Case) -> Figures:
    model = compiler.load(Source(case.name, case.spec))
    analysis = compiler.analyse(model, Workload(TOKENS))
    return Figures(analysis.params.total, analysis.model_flops, analysis.state.total.kv.n_bytes)


def built(case: Case) -> Any:
    config = getattr(transformers, case.config)(**case.fields)
    return getattr(transformers, case.model)(config).eval()


def ids() -> torch.Tensor:
    return torch.zeros(1, TOKENS, dtype=torch.int64)


def of_truth(case: Case) -> Figures:
    """What transformers stores: unique parameters, and keys and values after the prompt, two bytes each."""
    model = built(case)
    with torch.no_grad():
        cache = model(ids(), use_cache=True)
    held = getattr(cache, "past_key_values", None)
    kept = [getattr(layer, name, None) for layer in getattr(held, "layers", ()) for name in ("keys", "values")]
    kv = sum(2 * tensor.numel() for tensor in kept if isinstance(tensor, torch.Tensor) and tensor.dim() == 4)
    return Figures(sum(parameter.numel() for parameter in model.parameters()), None, kv)


def of_thop(case: Case) -> Figures:
    import thop

    with torch.no_grad():
        multiply_adds, parameters = thop.profile(built(case), inputs=(ids(),), verbose=False)
    return Figures(int(parameters), int(2 * multiply_adds))


def of_ptflops(case: Case) -> Figures:
    from ptflops import get_model_complexity_info

    def inputs(_: object) -> dict[str, Any]:
        return {"input_ids": ids(), "use_cache": False}

    options = {"print_per_layer_stat": False, "as_strings": False, "backend": "pytorch"}
    with torch.no_grad():
        multiply_adds, parameters = get_model_complexity_info(
            built(case), (TOKENS,), input_constructor=inputs, **options
        )
    return Figures(int(parameters), int(2 * multiply_adds))


def of_llm_analysis(case: Case) -> Figures:
    """Its model of a Transformer, from the fields that a configuration has; heads as transformers' defaults."""
    from llm_analysis.analysis import LLMAnalysis
    from llm_analysis.config import DtypeConfig, ModelConfig, get_gpu_config_by_name

    fields = case.fields
    config = ModelConfig(
        name=case.name,
        num_layers=fields["num_hidden_layers"],
        n_head=fields.get("num_attention_heads", fields.get("num_heads", 12)),
        hidden_dim=fields["hidden_size"],
        vocab_size=fields["vocab_size"],
        num_key_value_heads=fields.get("num_key_value_heads"),
        ffn_embed_dim=fields.get("intermediate_size"),
        expansion_ratio=fields["intermediate_size"] / fields["hidden_size"] if "intermediate_size" in fields else None,
        model_type="llama",
        moe_num_experts=fields.get("num_experts", 1),
        moe_top_k=fields.get("num_experts_per_tok", 1),
    )
    analysis = LLMAnalysis(config, get_gpu_config_by_name("a100-sxm-80gb"), DtypeConfig())
    kv = fields["num_hidden_layers"] * analysis.get_memory_kv_cache_per_layer(1, TOKENS)
    return Figures(int(analysis.get_num_params_total()), int(analysis.get_num_flops_fwd_total(1, TOKENS)), int(kv))


if __name__ == "__main__":
    sys.exit(main())
