"""Public models that archc has no line of code for: each a spec, equal to transformers' own class.

Their weights go under our names by the rules beside each spec. Logits in float32; gradients in float64, where no sum
is short of digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.models.packages import Workshop  # noqa: E402

from .pair import PLAIN, in_type, router_margin, run  # noqa: E402

CLOSE = 1e-5  # float32: max|a-b| / max|b|
EXACT = 1e-6  # float64, likewise: theirs rounds a few constants, as rotary frequencies, to float32 before
B, T, VOCAB = 2, 23, 29
COMMON = {"vocab_size": VOCAB, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}

Tensors = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A configuration of theirs, the same model as a spec, and rules from their names to ours, the first that fits.

    `split` takes tensors of theirs apart that hold several of ours.
    """

    config: Any
    spec: str
    rules: dict[str, str]
    split: Callable[[Tensors], Tensors] = field(default=lambda tensors: tensors)

    def renamed(self, theirs: Tensors) -> Tensors:
        ours = {}
        for name, tensor in self.split(theirs).items():
            rule = next(rule for rule in self.rules if re.fullmatch(rule, name))
            ours[re.sub(rule, self.rules[rule], name)] = tensor
        return ours


ENDS = {
    r"model\.embed_tokens\.weight": "embed.weight",
    r"lm_head\.weight": "lm_head.weight",
    r"model\.norm\.weight": "norm.weight",
}
LLAMA = ENDS | {
    r"model\.layers\.(\d+)\.self_attn\.(\w+)\.(\w+)": r"layers.\1.mixer.\2.\3",
    r"model\.layers\.(\d+)\.input_layernorm\.(\w+)": r"layers.\1.mixer_norm.\2",
    r"model\.layers\.(\d+)\.post_attention_layernorm\.(\w+)": r"layers.\1.mlp_norm.\2",
    r"model\.layers\.(\d+)\.mlp\.(\w+)\.(\w+)": r"layers.\1.mlp.\2.\3",
}
GEMMA = {
    r"model\.layers\.(\d+)\.post_attention_layernorm\.weight": r"layers.\1.mixer_out_norm.weight",
    r"model\.layers\.(\d+)\.pre_feedforward_layernorm\.weight": r"layers.\1.mlp_norm.weight",
    r"model\.layers\.(\d+)\.post_feedforward_layernorm\.weight": r"layers.\1.mlp_out_norm.weight",
} | LLAMA


def gemma2() -> Case:
    """Windows and full attention in turn, soft caps, norms on both sides of a sublayer (arXiv:2408.00118)."""
    config = transformers.Gemma2Config(
        **COMMON,
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        query_pre_attn_scalar=8,
        sliding_window=5,
        attn_logit_softcapping=3.0,
        final_logit_softcapping=2.0,
        rms_norm_eps=3e-5,
    )
    spec = """
        d_model 12
        tied
        norm rms(eps=3e-5, weight=one_plus)
        mlp geglu_tanh(16)
        residual(norm=sandwich)
        embed(scale=sqrt(12))
        logits(cap=2)
        let attn = attn(gqa(4,2), d_head=6, rope, scale=1/sqrt(8), cap=3)
        block x2 < attn window(5), attn >
    """
    return Case(config, spec, GEMMA)


def gemma3() -> Case:
    """Five windows to one full attention, each with its own rotary base, and norms of q and k (arXiv:2503.19786)."""
    config = transformers.Gemma3TextConfig(
        **COMMON,
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=6,
        query_pre_attn_scalar=6,
        sliding_window=4,
        rms_norm_eps=1e-6,
    )
    spec = """
        d_model 12
        tied
        norm rms(eps=1e-6, weight=one_plus)
        mlp geglu_tanh(16)
        residual(norm=sandwich)
        embed(scale=sqrt(12))
        let attn = attn(mqa(4), d_head=6, qk_norm=rms)
        block < attn window(4) rope(theta=1e4) x5, attn rope(theta=1e6) >
    """
    return Case(config, spec, GEMMA)


def starcoder2() -> Case:
    """Layer norms, biases everywhere, a plain GELU network, windows (arXiv:2402.19173)."""
    config = transformers.Starcoder2Config(
        **COMMON,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=7,
        norm_epsilon=2e-5,
        use_bias=True,
        tie_word_embeddings=True,
    )
    spec = """
        d_model 16
        tied
        norm layer_norm(eps=2e-5)
        mlp gelu_tanh(20, bias)
        block x2 < attn gqa(4,2) rope window(7) bias out_bias >
    """
    names = {r"model\.norm\.bias": "norm.bias"}
    mlp = {
        r"model\.layers\.(\d+)\.mlp\.c_fc\.(\w+)": r"layers.\1.mlp.up_proj.\2",
        r"model\.layers\.(\d+)\.mlp\.c_proj\.(\w+)": r"layers.\1.mlp.down_proj.\2",
    }
    return Case(config, spec, names | mlp | LLAMA)


def deepseek_v3() -> Case:
    """Latent attention, a sigmoid router with groups and a selection bias, shared experts (arXiv:2412.19437)."""
    config = transformers.DeepseekV3Config(
        **COMMON,
        hidden_size=12,
        intermediate_size=14,
        moe_intermediate_size=6,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_shared_experts=2,
        n_routed_experts=8,
        routed_scaling_factor=2.5,
        kv_lora_rank=6,
        q_lora_rank=7,
        qk_rope_head_dim=4,
        qk_nope_head_dim=6,
        v_head_dim=5,
        n_group=4,
        topk_group=2,
        num_experts_per_tok=3,
        first_k_dense_replace=1,
        norm_topk_prob=True,
        rope_interleave=False,
    )
    spec = """
        d_model 12
        norm rms(eps=1e-6)
        mlp swiglu(14)
        let mla = mla(4, kv_rank=6, q_rank=7, d_head=6, d_rope=4, d_head_v=5, rope(theta=1e4), norm=rms(eps=1e-6))
        let experts = moe(expert=swiglu(6), shared=swiglu(12),
          router=sigmoid(renorm, select_bias, scale=2.5, groups=4, top_groups=2)) top3/8
        block < mla >
        block x2 < mla > experts
    """
    rules = {
        r"model\.layers\.(\d+)\.self_attn\.kv_a_proj_with_mqa\.weight": r"layers.\1.mixer.kv_a_proj.weight",
        r"model\.layers\.(\d+)\.self_attn\.(q|kv)_a_layernorm\.weight": r"layers.\1.mixer.\2_a_norm.weight",
        r"model\.layers\.(\d+)\.mlp\.gate\.weight": r"layers.\1.mlp.router.weight",
        r"model\.layers\.(\d+)\.mlp\.gate\.e_score_correction_bias": r"layers.\1.mlp.select_bias",
        r"model\.layers\.(\d+)\.mlp\.experts\.(\w+)": r"layers.\1.mlp.experts.\2",
        r"model\.layers\.(\d+)\.mlp\.shared_experts\.(\w+)\.weight": r"layers.\1.mlp.shared.\2.weight",
    }
    return Case(config, spec, rules | LLAMA, gate_and_up)


def gate_and_up(theirs: Tensors) -> Tensors:
    """Gates and what they multiply, one above the other."""
    ours: Tensors = {}
    for name, tensor in theirs.items():
        if name.endswith(("experts.gate_up_proj", "input_linear.weight")):
            gate, up = tensor.chunk(2, -2)
            for part, rows in (("gate_proj", gate), ("up_proj", up)):
                ours[name.replace("gate_up_proj", part).replace("input_linear", part)] = rows
        else:
            ours[name.replace("output_linear", "down_proj")] = tensor
    return ours


def lfm2() -> Case:
    """Gated short convolutions, attention here and there (arXiv:2511.23404)."""
    config = transformers.Lfm2Config(
        **COMMON,
        hidden_size=16,
        intermediate_size=20,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=4,
        layer_types=["conv", "conv", "full_attention", "conv"],
        num_attention_heads=4,
        num_key_value_heads=2,
        conv_L_cache=3,
        conv_bias=True,
        norm_eps=3e-5,
    )
    spec = """
        d_model 16
        tied
        norm rms(eps=3e-5)
        mlp swiglu(20)
        let conv = short_conv(d_conv=3, bias, conv_bias)
        block < conv x2, attn gqa(4,2) rope(theta=1e6) qk_norm=rms, conv >
    """
    rules = {
        r"model\.embedding_norm\.weight": "norm.weight",
        r"model\.layers\.(\d+)\.operator_norm\.weight": r"layers.\1.mixer_norm.weight",
        r"model\.layers\.(\d+)\.ffn_norm\.weight": r"layers.\1.mlp_norm.weight",
        r"model\.layers\.(\d+)\.conv\.conv\.(\w+)": r"layers.\1.mixer.conv1d.\2",
        r"model\.layers\.(\d+)\.conv\.(\w+)\.(\w+)": r"layers.\1.mixer.\2.\3",
        r"model\.layers\.(\d+)\.feed_forward\.w1\.weight": r"layers.\1.mlp.gate_proj.weight",
        r"model\.layers\.(\d+)\.feed_forward\.w3\.weight": r"layers.\1.mlp.up_proj.weight",
        r"model\.layers\.(\d+)\.feed_forward\.w2\.weight": r"layers.\1.mlp.down_proj.weight",
        r"model\.layers\.(\d+)\.self_attn\.([qk])_layernorm\.weight": r"layers.\1.mixer.\2_norm.weight",
        r"model\.layers\.(\d+)\.self_attn\.out_proj\.weight": r"layers.\1.mixer.o_proj.weight",
    }
    return Case(config, spec, rules | LLAMA)


def falcon_h1() -> Case:
    """Attention and Mamba-2 side by side in every layer, with a factor on everything (arXiv:2507.22448)."""
    config = transformers.FalconH1Config(
        **COMMON,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        mamba_d_ssm=24,
        mamba_n_heads=6,
        mamba_d_head=4,
        mamba_n_groups=2,
        mamba_d_state=5,
        mamba_chunk_size=8,
        mamba_rms_norm=True,
        mamba_norm_before_gate=False,
        rms_norm_eps=3e-5,
        embedding_multiplier=3.0,
        lm_head_multiplier=0.5,
        key_multiplier=0.75,
        attention_in_multiplier=1.25,
        attention_out_multiplier=0.5,
        ssm_in_multiplier=0.75,
        ssm_out_multiplier=1.5,
        ssm_multipliers=[0.5, 2.0, 1.5, 0.25, 1.25],
        mlp_multipliers=[0.5, 2.0],
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    spec = """
        d_model 16
        norm rms(eps=3e-5)
        mlp swiglu(20, gate_scale=0.5, out_scale=2)
        embed(scale=3)
        logits(scale=0.5)
        let ssm = mamba2(n_heads=6, d_head=4, d_state=5, n_groups=2, norm=rms, chunk=8,
          scales=parts(z=0.5, x=2, B=1.5, C=0.25, dt=1.25), in_scale=0.75, out_scale=1.5)
        let attn = attn(gqa(4,2), rope(theta=1e4), k_scale=0.75, in_scale=1.25, out_scale=0.5)
        block x2 < ssm || attn >
    """
    rules = {
        r"model\.final_layernorm\.weight": "norm.weight",
        r"model\.layers\.(\d+)\.mamba\.(.+)": r"layers.\1.mixer.\2",
        r"model\.layers\.(\d+)\.self_attn\.(\w+)\.weight": r"layers.\1.mixer_2.\2.weight",
        r"model\.layers\.(\d+)\.pre_ff_layernorm\.weight": r"layers.\1.mlp_norm.weight",
        r"model\.layers\.(\d+)\.feed_forward\.(\w+)\.weight": r"layers.\1.mlp.\2.weight",
    }
    return Case(config, spec, rules | LLAMA)


def granite_hybrid() -> Case:
    """Mamba-2 and attention without positions, experts beside a shared one, four multipliers (IBM Granite 4)."""
    config = transformers.GraniteMoeHybridConfig(
        **COMMON,
        hidden_size=16,
        intermediate_size=6,
        shared_intermediate_size=10,
        num_hidden_layers=4,
        layer_types=["mamba", "mamba", "attention", "mamba"],
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=5,
        num_experts_per_tok=2,
        mamba_n_heads=8,
        mamba_d_head=4,
        mamba_expand=2,
        mamba_n_groups=1,
        mamba_d_state=6,
        mamba_chunk_size=8,
        rms_norm_eps=3e-5,
        embedding_multiplier=3.0,
        attention_multiplier=0.25,
        residual_multiplier=0.5,
        logits_scaling=4.0,
        position_embedding_type="nope",
        tie_word_embeddings=True,
    )
    spec = """
        d_model 16
        tied
        norm rms(eps=3e-5)
        mlp moe(expert=swiglu(6), shared=swiglu(10), router=softmax(renorm)) top2/5
        embed(scale=3)
        residual(branch=0.5)
        logits(scale=1/4)
        let ssm = mamba2(n_heads=8, d_head=4, d_state=6, norm=rms, chunk=8)
        block < ssm x2, attn gqa(4,2) scale=0.25, ssm >
    """
    moe = r"model\.layers\.(\d+)\.block_sparse_moe"
    rules = {
        moe + r"\.router\.weight": r"layers.\1.mlp.router.weight",
        moe + r"\.gate\.weight": r"layers.\1.mlp.router.weight",
        moe + r"\.experts\.(\w+)": r"layers.\1.mlp.experts.\2",
        r"model\.layers\.(\d+)\.shared_mlp\.(\w+)\.weight": r"layers.\1.mlp.shared.\2.weight",
        r"model\.layers\.(\d+)\.mamba\.(.+)": r"layers.\1.mixer.\2",
    }
    return Case(config, spec, rules | LLAMA, gate_and_up)


def olmo_hybrid() -> Case:
    """Gated DeltaNet that may turn its state round, normed before; attention normed behind, and over all heads."""
    config = transformers.OlmoHybridConfig(
        **COMMON,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=4,
        layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
        num_attention_heads=4,
        num_key_value_heads=2,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=4,
        linear_value_head_dim=5,
        linear_conv_kernel_dim=3,
        linear_allow_neg_eigval=True,
        rms_norm_eps=3e-5,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    spec = """
        d_model 16
        norm rms(eps=3e-5)
        mlp swiglu(20)
        let delta = gated_delta(4, n_k_heads=2, d_head=4, d_head_v=5, d_conv=3, negative, norm=rms(eps=1e-5))
        let attn = attn(gqa(4,2), rope(theta=1e4), qk_norm=rms, qk_norm_over=heads)
        block < delta x3, < attn > placement=out >
    """
    linear = r"model\.layers\.(\d+)\.linear_attn"
    full = r"model\.layers\.(3)"
    rules = {
        full + r"\.post_attention_layernorm\.weight": r"layers.\1.mixer_out_norm.weight",
        full + r"\.post_feedforward_layernorm\.weight": r"layers.\1.mlp_out_norm.weight",
        linear + r"\.o_proj\.weight": r"layers.\1.mixer.out_proj.weight",
        linear + r"\.o_norm\.weight": r"layers.\1.mixer.norm.weight",
        linear + r"\.(.+)": r"layers.\1.mixer.\2",
        r"model\.layers\.(\d+)\.attention_layer_norm\.weight": r"layers.\1.mixer_norm.weight",
        r"model\.layers\.(\d+)\.feedforward_layer_norm\.weight": r"layers.\1.mlp_norm.weight",
    }

    def joined(theirs: Tensors) -> Tensors:
        ours = dict(theirs)
        for i in range(3):
            stem = f"model.layers.{i}.linear_attn"
            parts = [ours.pop(f"{stem}.{part}_proj.weight") for part in "qkvgba"]
            ours[f"{stem}.in_proj.weight"] = torch.cat(parts)
        return ours

    return Case(config, spec, rules | LLAMA, joined)


CASES = [gemma2, gemma3, starcoder2, deepseek_v3, lfm2, falcon_h1, granite_hybrid, olmo_hybrid]


def same(a: Any, b: Any, what: str, tolerance: float) -> None:
    error = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30))
    assert error <= tolerance, f"{what}: max|a-b| / max|b| = {error:.2e}"


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_spec_is_all_that_it_takes(make: Callable[[], Case], workshop: Workshop) -> None:
    case = make()
    lines = [line.strip() if not line.startswith(" " * 10) else line for line in case.spec.splitlines() if line.strip()]
    ours = workshop("\n".join([f"model {make.__name__}", f"vocab {VOCAB}", *lines]) + "\n").make(torch.float32)
    torch.manual_seed(3)
    theirs = transformers.AutoModelForCausalLM.from_config(case.config, **PLAIN).eval()
    with torch.no_grad():  # away from zero and one, so that nothing cancels and nothing is left out
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    for name, buffer in theirs.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn_like(buffer) * 0.05)
    biases = {name: buffer for name, buffer in theirs.named_buffers() if name.endswith("e_score_correction_bias")}
    weights = case.renamed({name: p.detach().clone() for name, p in theirs.named_parameters()} | biases)
    own = dict(ours.named_parameters())
    assert set(weights) == set(own)
    ours.load_state_dict(weights, strict=not case.config.tie_word_embeddings)
    draws = (torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(seed)) for seed in range(100))
    tokens = next(draw for draw in draws if router_margin(theirs, draw) > CLOSE)
    same(ours(tokens), run(theirs, tokens), "logits", CLOSE)

    ours, theirs = ours.double(), in_type(theirs, torch.float64)
    cotangent = torch.randn(B, T, VOCAB, dtype=torch.float64)
    for model in (ours, theirs):
        (run(model, tokens) * cotangent).sum().backward()
    grads = case.renamed({name: p.grad for name, p in theirs.named_parameters()})
    for name, grad in grads.items():
        same(dict(ours.named_parameters())[name].grad, grad, name, EXACT)
