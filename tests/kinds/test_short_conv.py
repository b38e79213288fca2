"""Gated short convolutions: LFM2 against transformers."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.models.packages import Workshop

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLOSE = 1e-5  # float32, relative to the largest number of a tensor
B, T = 2, 11
NAMES = {
    "embed.": "model.embed_tokens.",
    "mixer_norm.": "operator_norm.",
    "mlp_norm.": "ffn_norm.",
    "mlp.gate_proj.": "feed_forward.w1.",
    "mlp.up_proj.": "feed_forward.w3.",
    "mlp.down_proj.": "feed_forward.w2.",
    "mixer.q_norm.": "self_attn.q_layernorm.",
    "mixer.k_norm.": "self_attn.k_layernorm.",
    "mixer.q_proj.": "self_attn.q_proj.",
    "mixer.k_proj.": "self_attn.k_proj.",
    "mixer.v_proj.": "self_attn.v_proj.",
    "mixer.o_proj.": "self_attn.out_proj.",
    "mixer.conv1d.": "conv.conv.",
    "mixer.": "conv.",
}


def their_name(ours: str) -> str:
    if ours == "norm.weight":
        return "model.embedding_norm.weight"
    found = next((part for part in NAMES if part in ours), "")
    return ("model." if ours.startswith("layers.") else "") + ours.replace(found, NAMES.get(found, ""))


def same(a: Any, b: Any, what: str, floor: float = 1e-30) -> None:
    error = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=floor))
    assert error <= CLOSE, f"{what}: max|a-b| / max|b| = {error:.2e}"


@pytest.mark.parametrize("seed", range(6))
def test_equals_transformers(seed: int, workshop: Workshop) -> None:
    """Logits and all gradients of random tiny LFM2s: widths of the convolution, biases, any order of layers."""
    draw = random.Random(seed)
    kinds = [*draw.choices(["conv", "full_attention"], k=2), "conv", "full_attention"]
    width, bias, n_kv, d_ff = draw.choice([2, 3, 4]), draw.random() < 0.5, draw.choice([1, 2]), draw.choice([9, 14])
    config = transformers.Lfm2Config(
        vocab_size=29,
        hidden_size=16,
        intermediate_size=d_ff,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=len(kinds),
        num_attention_heads=2 * n_kv,
        num_key_value_heads=n_kv,
        norm_eps=3e-5,
        conv_bias=bias,
        conv_L_cache=width,
        layer_types=kinds,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        pad_token_id=None,
    )
    theirs = transformers.Lfm2ForCausalLM(config)
    conv = f"short_conv(d_conv={width}{', bias, conv_bias' * bias})"
    attention = f"attn gqa({2 * n_kv},{n_kv}) rope(theta=1e6) qk_norm=rms"
    layers = ", ".join(conv if kind == "conv" else attention for kind in kinds)
    lines = ["vocab 29", "d_model 16", "norm rms(eps=3e-5)", f"mlp swiglu({d_ff})", "tied", f"block < {layers} >"]
    ours = workshop("\n".join(["model tiny_lfm2", *lines]) + "\n").make(torch.float32, seed)
    parameters, others = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert {their_name(own) for own in parameters} == set(others)
    with torch.no_grad():
        for own, parameter in parameters.items():
            others[their_name(own)].copy_(parameter)
    tokens = torch.randint(29, (B, T), generator=torch.Generator().manual_seed(1))
    weight = torch.randn(B, T, 29, generator=torch.Generator().manual_seed(2))
    logits, want = ours(tokens), theirs(tokens, use_cache=False).logits
    same(logits, want, "logits")
    (logits * weight).sum().backward()
    (want * weight).sum().backward()
    floor = 1e-2 * max(float(parameter.grad.abs().max()) for parameter in others.values())
    for own, parameter in parameters.items():
        same(parameter.grad, others[their_name(own)].grad, own, floor)
