"""The models that tests run over: every spec in small, and one small spec for each thing that a layer can be."""

from __future__ import annotations

from pathlib import Path

from .shrink import shrink

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.arch"))

SETTINGS = "vocab 17; d_model 16; context 48"
SWIGLU = "mlp swiglu(12)"
NONE = "mlp none"


def spec(name: str, *statements: str) -> str:
    return "\n".join([f"model {name}", *SETTINGS.split("; "), *statements]) + "\n"


KINDS = {
    name: spec(name, *statements)
    for name, statements in {
        "mamba": (NONE, "block x2 < mamba(d_state=4) >"),
        "mamba_inner_norms": (NONE, "block x2 < mamba(d_state=3, d_conv=3, dt_rank=2, inner_norm=rms(eps=1e-4)) >"),
        "mamba_biases": (SWIGLU, "block < mamba(d_state=4, bias) >"),
        "mamba_no_conv_bias": (SWIGLU, "block < mamba(d_state=2, d_conv=2, expand=3, conv_bias=false) >"),
        "mamba_two_shapes": (NONE, "block < mamba(d_state=4), mamba(d_state=5, d_conv=3), mamba(conv_bias=false) >"),
        "gqa": (SWIGLU, "block x2 < attn gqa(4,2) >"),
        "mha": (SWIGLU, "block < attn mha(4) >"),
        "mqa": (SWIGLU, "block < attn(mqa(4), d_head=6) >"),
        "window": (SWIGLU, "block x2 < attn gqa(4,2) window(5) rope >"),
        "window_of_one": (SWIGLU, "block < attn gqa(4,2) window(1), attn gqa(4,2) >"),
        "rope": (SWIGLU, "block < attn gqa(4,2) rope(theta=100) >"),
        "rope_partial": (SWIGLU, "block < attn(gqa(4,2), d_head=8, rope(theta=100, dims=4)) >"),
        "qk_norm": (SWIGLU, "block < attn gqa(4,2) qk_norm=rms rope >"),
        "attention_biases": (SWIGLU, "block < attn gqa(4,2) bias out_bias scale=0.3 >"),
        "qkv_conv": (SWIGLU, "block x2 < attn gqa(4,2) rope qkv_conv=conv(3) >"),
        "qkv_conv_options": (
            NONE,
            "share g = attn gqa(4,2) bias window(5) qkv_conv=conv(2, bias=false, act=silu) lora(2, on=[qkv]) + gelu(6)",
            "block x2 < mamba(d_state=2), g >",
        ),
        "swiglu_bias": ("mlp swiglu(12, bias)", "block < attn gqa(4,2) >"),
        "geglu": ("mlp geglu(12)", "block < attn gqa(4,2) >"),
        "gelu": ("mlp gelu(12, bias)", "block < attn gqa(4,2) >"),
        "relu": ("mlp relu(12)", "block < mamba(d_state=4) >"),
        "relu2": ("mlp relu2(12)", "block < mamba(d_state=4) >"),
        "moe_top1": (SWIGLU, "block < attn gqa(4,2) > moe top1/4"),
        "moe_top2": (SWIGLU, "block x2 < attn gqa(4,2) > moe every 2 top2/4"),
        "moe_renormalised": (SWIGLU, "block < attn gqa(4,2) > moe(router=softmax(renorm)) top2/5"),
        "moe_of_relu2": (SWIGLU, "block < mamba(d_state=4) > moe(expert=relu2(7)) top3/4"),
        "moe_of_one": (SWIGLU, "block < attn gqa(4,2) > moe top1/1"),
        "single_operators": (
            NONE,
            "block x2 < mamba(d_state=4), swiglu(12), attn gqa(4,2), moe(expert=gelu(6)) top2/4 >",
        ),
        "channel_mixers_alone": (NONE, "block < relu2(12), swiglu(12) >"),
        "sums": (SWIGLU, "block < mamba(d_state=4) + attn gqa(4,2) >"),
        "sums_of_three": (NONE, "block x2 < mamba(d_state=4) + attn gqa(4,2) window(5) + mamba(d_state=2) + gelu(6) >"),
        "tied": (SWIGLU, "tied", "block < attn gqa(4,2) >"),
        "embed_scale": (SWIGLU, "embed(scale=3, tied)", "block < attn gqa(4,2) >"),
        "logits": (SWIGLU, "logits(scale=0.5, cap=2)", "block < attn gqa(4,2) >"),
        "tied_logits": (SWIGLU, "tied", "logits(cap=2)", "block < attn gqa(4,2) >"),
        "branch_scale": (
            SWIGLU,
            "residual(branch=0.7)",
            "block x2 < mamba(d_state=4), attn gqa(4,2) > moe every 2 top1/3",
        ),
        "residual_fp32": (
            SWIGLU,
            "embed(scale=2)",
            "residual(dtype=fp32)",
            "block < mamba(d_state=4), attn gqa(4,2) >",
        ),
        "scaled_and_normed_branches": (
            SWIGLU,
            "block < attn gqa(4,2) in_scale=0.5 out_scale=2, mamba(d_state=4, out_norm=rms) >",
        ),
        "parallel": (SWIGLU, "block x2 < attn gqa(4,2) window(5) || mamba(d_state=4) >"),
        "parallel_and_sum": (NONE, "block < attn gqa(4,2) || mamba(d_state=4) || mamba(d_state=3) + swiglu(8) >"),
        "mamba2": (NONE, "block x2 < mamba2(n_heads=4, d_head=4, d_state=6, n_groups=2, chunk=4) >"),
        "mamba2_without_norm": (SWIGLU, "block < mamba2(n_heads=2, d_head=6, d_state=4, norm=none, bias) >"),
        "mamba2_norm_first": (
            SWIGLU,
            "block < mamba2(n_heads=2, d_head=4, d_state=4, norm_before_gate, dt_limit(0.01, 0.5), conv_bias=false) >",
        ),
        "mamba2_multi_contract": (
            NONE,
            "block < mamba2(n_heads=4, d_head=3, d_state=5, n_groups=2, pattern=multi_contract, chunk=4) >",
        ),
        "mamba2_other_patterns": (
            NONE,
            "block < mamba2(n_heads=4, d_head=3, d_state=5, pattern=multi_expand), "
            "mamba2(n_heads=4, d_head=3, d_state=5, n_groups=2, pattern=multi_head) >",
        ),
        "shared": (
            NONE,
            "share g = attn gqa(4,2) + swiglu(8)",
            "block < mamba(d_state=4), g, mamba(d_state=4), g >",
        ),
        "shared_copies": (
            NONE,
            "share g(residual=none, out=linear) x2 = attn gqa(4,2) rope + swiglu(8)",
            "block x3 < mamba(d_state=4), g >",
        ),
        "shared_and_fed": (
            NONE,
            "share g(in=concat(h, embed), residual=none, out=linear) x2 = "
            "attn(gqa(4,2), d_head=8, lora=lora(2, on=[q, v])) + swiglu(8, lora=lora(3, on=[gate_up]))",
            "block x3 < mamba(d_state=4), mamba(d_state=4) <- g >",
        ),
        "mamba_heads": (NONE, "block x2 < mamba(d_state=3, dt_rank=2, n_heads=4) >"),
        "mamba_heads_options": (
            NONE,
            "block < mamba(d_state=2, d_conv=2, expand=3, n_heads=3, inner_norm=rms, conv_bias=false, bias) >",
        ),
        "shared_in_parallel": (
            SWIGLU,
            "tied",
            "share g(in=concat(embed, h), residual=none) x2 =",
            "  attn gqa(4,2) lora(3, on=[q, v]) || mamba(d_state=2) + swiglu(6) lora(2, on=[gate_up])",
            "block x3 < mamba(d_state=4), mamba(d_state=4) <- g, attn gqa(4,2) || mamba(d_state=4) <- g >",
        ),
        "shared_adapter": (
            NONE,
            "share g(in=concat(h, embed), residual=none, out=linear, adapter=lora(2, on=[q, v, gate_up])) x2 =",
            "  attn(gqa(4,2), d_head=8) + swiglu(8)",
            "block x3 < mamba(d_state=4), mamba(d_state=4) <- g >",
        ),
        "shared_two": (
            NONE,
            "share a x2 = swiglu(6)",
            "share b(out=linear) = attn gqa(4,2) lora(2, on=[k])",
            "block x2 < mamba(d_state=4) <- b, a, b >",
        ),
        "shared_twice_in_a_layer": (
            NONE,
            "share g(in=concat(h, embed), residual=none, out=linear) x3 =",
            "  attn gqa(4,2) lora(3, on=[q, v]) + swiglu(6) lora(2, on=[gate_up])",
            "block x3 < mamba(d_state=4) <- g + gelu(6) <- g, mamba(d_state=4) >",
        ),
        "one_plus": (SWIGLU, "norm rms(weight=one_plus)", "block x2 < attn gqa(4,2) qk_norm=rms, mamba(d_state=4) >"),
        "layer_norm": (SWIGLU, "norm layer_norm", "residual(dtype=fp32)", "block < attn gqa(4,2), mamba(d_state=4) >"),
        "layer_norm_bare": (SWIGLU, "norm layer_norm(eps=1e-6, bias=false)", "block < attn gqa(4,2) >"),
        "grouped_norm": (SWIGLU, "block < attn(gqa(4,2), out_norm=rms(groups=4)), mamba(d_state=4) >"),
        "norm_sandwich": (SWIGLU, "residual(norm=sandwich)", "block x2 < attn gqa(4,2), mamba(d_state=4) >"),
        "norm_post": (SWIGLU, "residual(norm=post, stream=1.5)", "block x2 < attn gqa(4,2), mamba(d_state=4) >"),
        "norm_out": (SWIGLU, "residual(norm=out)", "block x2 < attn gqa(4,2), mamba(d_state=4) >"),
        "residual_of_normed": (
            SWIGLU,
            "residual(of=normed, branch=0.5)",
            "block x2 < attn gqa(4,2) || mamba(d_state=4) >",
        ),
        "norm_sandwich_shared": (
            NONE,
            "residual(norm=sandwich)",
            "share g(residual=none) = attn gqa(4,2) + swiglu(8)",
            "block x2 < mamba(d_state=4) <- g, gelu(6) >",
        ),
        "attention_cap": (SWIGLU, "block x2 < attn gqa(4,2) cap=3 window(5) rope, attn gqa(4,2) cap=3 >"),
        "attention_gate": (SWIGLU, "block < attn gqa(4,2) out_gate=sigmoid d_head_v=5 k_scale=0.5 d_head=4 >"),
        "mla": (SWIGLU, "block x2 < mla(n_heads=4, kv_rank=6, d_head=5, d_rope=4, d_head_v=3) >"),
        "mla_options": (
            SWIGLU,
            "block < mla(4, 6, q_rank=7, d_head=4, d_rope=2, d_head_v=4, rope=none, norm=none, bias, scale=0.3), "
            "mla(2, 5, d_head=4, d_rope=6, rope=rope(theta=100, dims=4)) >",
        ),
        "gated_delta": (NONE, "block x2 < gated_delta(n_heads=4, n_k_heads=2, d_head=4, d_head_v=3) >"),
        "gated_delta_options": (
            SWIGLU,
            "block < gated_delta(n_heads=3, d_head=2, d_conv=2, conv_bias, negative, norm=rms(eps=1e-3)) >",
        ),
        "placement": (
            SWIGLU,
            "block x2 < mamba(d_state=4), attn gqa(4,2) rope qk_norm=rms qk_norm_over=heads placement=out > "
            "placement=sandwich",
        ),
        "part_scales": (
            "mlp swiglu(12, gate_scale=0.5)",
            "block < mamba2(n_heads=2, d_head=4, d_state=3, scales=parts(z=0.5, x=2, B=3, C=0.25, dt=1.5)) >",
        ),
        "reused_keys": (
            SWIGLU,
            "block x2 < attn gqa(4,2) rope, mamba(d_state=4), attn gqa(8,2) rope kv=prev d_head=4 >",
        ),
        "reused_keys_window": (
            NONE,
            "residual(norm=sandwich)",
            "block x2 < attn gqa(4,2) window(5) rope + attn gqa(4,2) kv=prev window(3) + gelu(6), mamba(d_state=4) >",
        ),
        "reused_keys_shared": (
            NONE,
            "share g = attn gqa(4,2) + swiglu(8)",
            "block x3 < mamba(d_state=4), g, attn gqa(4,2) kv=prev || mamba(d_state=4) >",
        ),
        "geglu_tanh": ("mlp geglu_tanh(12)", "block < attn gqa(4,2) >"),
        "glu": (
            "mlp glu(12, bias)",
            "block < attn gqa(4,2), attn gqa(4,2) + glu(10, act=none), attn gqa(4,2) + glu(9, act=relu2) >",
        ),
        "gelu_tanh": ("mlp gelu_tanh(12)", "block < attn gqa(4,2) >"),
        "s4": (NONE, "block x2 < s4(d_state=6) >"),
        "s4_options": (
            SWIGLU,
            "block < s4(d_state=4, discretisation=bilinear, init=inv, out=linear, bias=false), s4(2, out=none) >",
        ),
        "s4_and_mamba": (NONE, "block < s4(d_state=4) + mamba(d_state=3), s4(2) || attn gqa(4,2) window(5) >"),
        "linear_attn": (SWIGLU, "block x2 < linear_attn(4, chunk=4) >"),
        "linear_attn_options": (
            NONE,
            "block < linear_attn(2, d_head=5, feature=none, normalise=false, bias, out_bias, chunk=8), "
            "linear_attn(2, feature=softmax), linear_attn(4, feature=silu, normalise=false, chunk=3) >",
        ),
        "short_conv": (SWIGLU, "block x2 < short_conv >"),
        "short_conv_biases": (NONE, "block < short_conv(d_conv=2, bias, conv_bias), attn gqa(4,2) >"),
        "adaptive": (SWIGLU, "embed(adaptive([5, 9], div=2), scale=4)", "block < attn gqa(4,2) >"),
        "adaptive_softmax": (
            SWIGLU,
            "embed(adaptive([6], div=1))",
            "residual(dtype=fp32)",
            "block < mamba(d_state=4) >",
        ),
        "odd_eps": (SWIGLU, "norm rms(eps=1/3000)", "block < attn gqa(4,2) >"),
    }.items()
}


def shrunk() -> dict[str, str]:
    """Every spec in small; specs that differ in size alone once, under the first one's name."""
    models: dict[str, str] = {}
    for path in SPECS:
        try:
            text = shrink(path.read_text(encoding="utf-8"), path.stem)
        except Exception:  # test_shrink.py tells which and why
            continue
        body = text.split("\n", 1)[1]
        if body not in [other.split("\n", 1)[1] for other in models.values()]:
            models[path.stem] = text
    return models


SHRUNK = shrunk()
MODELS = {**SHRUNK, **KINDS}
