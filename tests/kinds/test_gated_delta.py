"""Gated DeltaNet: against its paper, against transformers' Qwen3-Next, and what a spec may not say of it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.ops.gated_delta import CHUNK
from archc.passes.workload import Workload
from tests.models.packages import Workshop

torch = pytest.importorskip("torch")

from archc.codegen.runtime import gated_delta as runtime  # noqa: E402
from tests.oracles.gated_delta import gated_delta_rule as oracle  # noqa: E402

EXACT = 1e-12  # float64, relative to the largest number of a tensor: sums in another order
CLOSE = 1e-5  # float32, likewise


def same(a: Any, b: Any, what: str, tolerance: float) -> None:
    error = float((a - b).detach().abs().max() / b.detach().abs().max())
    assert error <= tolerance, f"{what}: max|a-b| / max|b| = {error:.2e}"


# --- the recurrence --------------------------------------------------------------------------------


def inputs(T: int, G: int, H: int, K: int, V: int) -> list[Any]:
    draw = torch.Generator().manual_seed(T)
    shapes = [(2, T, G, K), (2, T, G, K), (2, T, H, V), (2, T, H), (2, T, H), (H,), (H,), (2, H, K, V)]
    return [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("T", "G", "H", "K", "V"), [(1, 1, 1, 1, 1), (63, 1, 3, 2, 5), (64, 2, 2, 3, 1), (131, 2, 4, 5, 3)]
)
def test_chunks_equal_the_paper(T: int, G: int, H: int, K: int, V: int, packed: bool) -> None:
    """Values, final state and all gradients; documents begin within a chunk and at its border."""
    *tensors, state = inputs(T, G, H, K, V)
    positions, most = None, 1.0 + packed
    if packed:
        rows = [[*range(7), *range(30), *range(T)][:T], [*range(5, 69), *range(T)][:T]]
        positions = torch.tensor(rows)
    want = oracle(*tensors, positions, state, most)
    got = runtime.gated_delta_fwd(*tensors, positions, state, most)[:2]
    weights = [torch.randn_like(one) for one in want]
    for mine, theirs in zip(got, want, strict=True):
        same(mine, theirs, "values", EXACT)
    for i, (mine, theirs) in enumerate(
        zip(*(torch.autograd.grad(out, [*tensors, state], weights) for out in (got, want)), strict=True)
    ):
        if float(theirs.abs().max()) > 0:  # where every row starts with a document, the initial state says nothing
            same(mine, theirs, f"gradient {i}", 1e-10)  # float64 through up to 131 steps


def test_the_analysis_has_the_chunks_of_the_operation() -> None:
    assert CHUNK == runtime.CHUNK


def test_flops_are_those_of_the_matrix_products() -> None:
    """Against torch's own counter over the chunked form; it counts no triangular systems, which take L L V each."""
    from torch.utils.flop_counter import FlopCounterMode

    T, H, K, V = 131, 2, 5, 3
    *tensors, state = inputs(T, H, H, K, V)
    prepared = runtime._prepared(*tensors, 1.0, torch.float64)
    squares = 2 * 64 * 64 + 3 * 3
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _, _, states = runtime.chunks.forward(*prepared, None, state, runtime.CHUNK)
    systems = 2 * H * squares * V
    assert counter.get_total_flops() + systems == runtime.forward_flops(2, T, H, K, V)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        grads = torch.ones(2, H, T, V, dtype=torch.float64), torch.zeros_like(state)
        runtime.chunks.backward(*grads, *prepared, None, states, runtime.CHUNK)
    assert counter.get_total_flops() + 2 * systems == runtime.backward_flops(2, T, H, K, V)


# --- against transformers --------------------------------------------------------------------------


def shapes(seed: int) -> dict[str, int]:
    draw = random.Random(seed)
    k_heads = draw.choice([1, 2, 3])
    return {
        "k_heads": k_heads,
        "heads": k_heads * draw.choice([1, 2]),
        "d_head": draw.choice([3, 4, 8]),
        "d_head_v": draw.choice([4, 5]),
        "d_conv": draw.choice([2, 4]),
    }


def qwen(one: dict[str, int]) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3NextConfig(
        vocab_size=29,
        hidden_size=12,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        linear_num_value_heads=one["heads"],
        linear_num_key_heads=one["k_heads"],
        linear_key_head_dim=one["d_head"],
        linear_value_head_dim=one["d_head_v"],
        linear_conv_kernel_dim=one["d_conv"],
        num_experts=5,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        moe_intermediate_size=6,
        shared_expert_intermediate_size=7,
        rms_norm_eps=3e-5,
        partial_rotary_factor=0.5,
        tie_word_embeddings=False,
        attn_implementation="eager",
        experts_implementation="eager",  # their grouped product wants sizes in multiples of 16 bytes
    )
    return transformers.Qwen3NextForCausalLM(config).eval()


def spec(one: dict[str, int]) -> str:
    delta = (
        f"gated_delta(n_heads={one['heads']}, n_k_heads={one['k_heads']}, d_head={one['d_head']}, "
        f"d_head_v={one['d_head_v']}, d_conv={one['d_conv']}, norm=rms(weight=plain))"
    )
    return "\n".join(
        [
            "model qwen3_next",
            "vocab 29",
            "d_model 12",
            "norm rms(eps=3e-5, weight=one_plus)",
            "mlp moe(expert=swiglu(6), shared=swiglu(7), shared_gate, router=softmax(renorm)) top2/5",
            f"block < {delta}, attn gqa(4,2) d_head=8 rope(theta=1e4, dims=4) qk_norm=rms out_gate=sigmoid >",
        ]
    )


def from_qwen(theirs: dict[str, Any], one: dict[str, int]) -> dict[str, Any]:
    """Their tensors under our names: rows of one key head after the other become rows of q, k, v, z, b and a."""
    r, K, V, G = one["heads"] // one["k_heads"], one["d_head"], one["d_head_v"], one["k_heads"]
    out = {"embed.weight": theirs["model.embed_tokens.weight"], "lm_head.weight": theirs["lm_head.weight"]}
    out["norm.weight"] = theirs["model.norm.weight"]
    delta, attn = "model.layers.0.linear_attn", "model.layers.1.self_attn"
    q, k, v, z = theirs[f"{delta}.in_proj_qkvz.weight"].unflatten(0, (G, -1)).split([K, K, r * V, r * V], 1)
    b, a = theirs[f"{delta}.in_proj_ba.weight"].unflatten(0, (G, -1)).split([r, r], 1)
    out["layers.0.mixer.in_proj.weight"] = torch.cat([x.flatten(0, 1) for x in (q, k, v, z, b, a)])
    for name in ("conv1d.weight", "A_log", "dt_bias", "norm.weight", "out_proj.weight"):
        out[f"layers.0.mixer.{name}"] = theirs[f"{delta}.{name}"]
    query, gate = theirs[f"{attn}.q_proj.weight"].unflatten(0, (4, 2, -1)).unbind(1)
    out["layers.1.mixer.q_proj.weight"], out["layers.1.mixer.gate_proj.weight"] = (
        query.flatten(0, 1),
        gate.flatten(0, 1),
    )
    for name in ("k_proj", "v_proj", "o_proj", "q_norm", "k_norm"):
        out[f"layers.1.mixer.{name}.weight"] = theirs[f"{attn}.{name}.weight"]
    for i in range(2):
        layer, mlp = f"model.layers.{i}", f"model.layers.{i}.mlp"
        out[f"layers.{i}.mixer_norm.weight"] = theirs[f"{layer}.input_layernorm.weight"]
        out[f"layers.{i}.mlp_norm.weight"] = theirs[f"{layer}.post_attention_layernorm.weight"]
        out[f"layers.{i}.mlp.router.weight"] = theirs[f"{mlp}.gate.weight"]
        out[f"layers.{i}.mlp.shared_gate.weight"] = theirs[f"{mlp}.shared_expert_gate.weight"]
        gate_up = theirs[f"{mlp}.experts.gate_up_proj"]
        out[f"layers.{i}.mlp.experts.gate_proj"], out[f"layers.{i}.mlp.experts.up_proj"] = gate_up.chunk(2, 1)
        out[f"layers.{i}.mlp.experts.down_proj"] = theirs[f"{mlp}.experts.down_proj"]
        for name in ("gate_proj", "up_proj", "down_proj"):
            out[f"layers.{i}.mlp.shared.{name}.weight"] = theirs[f"{mlp}.shared_expert.{name}.weight"]
    return out


@pytest.mark.parametrize("seed", range(6))
def test_equals_transformers(seed: int, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of random tiny Qwen3-Next models in fp32; all gradients in fp64.

    The gradient of A_log, a sum over all tokens that nearly cancels, has too few digits in fp32, in theirs as in ours.
    Their code computes the rule in `torch.float32` whatever the model's dtype, so that name means float64 here.
    """
    one = shapes(seed)
    torch.manual_seed(seed)
    theirs = qwen(one)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    weights = from_qwen({name: p.detach().clone() for name, p in theirs.named_parameters()}, one)
    ours = workshop(spec(one)).make(torch.float32)
    ours.load_state_dict(weights)
    tokens, weight = torch.randint(29, (2, 70)), torch.randn(2, 70, 29)
    same(ours(tokens), theirs(tokens, use_cache=False).logits, "logits", CLOSE)
    ours, theirs = ours.double(), theirs.double()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        (theirs(tokens, use_cache=False).logits * weight).sum().backward()
    (ours(tokens) * weight).sum().backward()
    grads = from_qwen({name: p.grad for name, p in theirs.named_parameters()}, one)
    for name, parameter in ours.named_parameters():
        same(parameter.grad, grads[name], name, CLOSE)


def test_uneven_heads() -> None:
    text = "vocab 8\nd_model 8\nmlp none\nblock < gated_delta(n_heads=6, n_k_heads=4) >"
    with pytest.raises(DiagnosticError) as failure:
        compiler.load(Source("spec", text))
    (finding,) = failure.value.diagnostics
    assert finding.code == "uneven-heads"
    assert finding.help == "n_k_heads may be 1, 2, 3 or 6"


def test_the_published_size() -> None:
    """Qwen3-Next-80B-A3B as transformers builds it, on the meta device: every parameter."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3NextConfig(
        vocab_size=151936,
        hidden_size=2048,
        num_hidden_layers=48,
        num_attention_heads=16,
        num_key_value_heads=2,
        head_dim=256,
        linear_num_value_heads=32,
        linear_num_key_heads=16,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        num_experts=512,
        num_experts_per_tok=10,
        moe_intermediate_size=512,
        shared_expert_intermediate_size=512,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        theirs = sum(parameter.numel() for parameter in transformers.Qwen3NextForCausalLM(config).parameters())
    text = (Path(__file__).parents[2] / "specs" / "qwen3_next_80b.arch").read_text(encoding="utf-8")
    assert compiler.analyse(compiler.load(Source("spec", text)), Workload(4096)).params.total == theirs
