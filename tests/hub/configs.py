"""Random tiny configurations of every family, as transformers' own objects."""

from __future__ import annotations

import random
from typing import Any

from archc import hub

FAMILIES = {family.name: family for family in hub.FAMILIES}


def config_class(name: str) -> Any:
    import transformers

    return transformers.models.auto.configuration_auto.CONFIG_MAPPING[name]


def random_config(name: str, seed: int, **pinned: object) -> Any:
    """The configuration of a seed; `pinned` keys are not left to chance."""
    draw = random.Random(f"{name} {seed}")
    values = DRAWS[name](draw) | pinned
    return config_class(name)(architectures=[FAMILIES[name].architecture], **values)


def sizes(draw: random.Random, **more: object) -> dict[str, object]:
    """What all families have."""
    return {
        "vocab_size": draw.randint(5, 40),
        "num_hidden_layers": draw.randint(1, 5),
        "tie_word_embeddings": flip(draw),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        **more,
    }


def heads(draw: random.Random) -> dict[str, object]:
    n_kv = draw.randint(1, 3)
    n = n_kv * draw.randint(1, 3)
    return {"num_attention_heads": n, "num_key_value_heads": n_kv, "hidden_size": n * 2 * draw.randint(1, 4)}


def decoder(draw: random.Random) -> dict[str, object]:
    """Llama and what follows it."""
    return sizes(
        draw,
        **heads(draw),
        head_dim=draw.choice([None, 2, 6]),
        intermediate_size=draw.randint(1, 24),
        rms_norm_eps=draw.choice([1e-5, 1e-6, 3e-6]),
        rope_parameters={"rope_type": "default", "rope_theta": draw.choice([1e4, 5e5, 123456.0])},
        max_position_embeddings=draw.choice([64, 1000]),
    )


def llama(draw: random.Random) -> dict[str, object]:
    return decoder(draw) | {"attention_bias": flip(draw), "mlp_bias": flip(draw)}


def mistral(draw: random.Random) -> dict[str, object]:
    return decoder(draw) | {"sliding_window": draw.choice([None, 3, 16])}


def mixtral(draw: random.Random) -> dict[str, object]:
    n_experts = draw.randint(1, 5)
    return decoder(draw) | {
        "num_local_experts": n_experts,
        "num_experts_per_tok": draw.randint(1, n_experts),
        "sliding_window": draw.choice([None, 7]),
    }


def phi3(draw: random.Random) -> dict[str, object]:
    values = decoder(draw)
    del values["head_dim"]  # transformers follows it, but checks positions without it
    d_head = int(values["hidden_size"]) // int(values["num_attention_heads"])  # type: ignore[call-overload]
    share = draw.choice([dims / d_head for dims in range(2, d_head + 1, 2)])
    values["rope_parameters"] = {**values["rope_parameters"], "partial_rotary_factor": share}  # type: ignore[dict-item]
    return values | {"sliding_window": draw.choice([None, 3, 16])}


def mamba(draw: random.Random) -> dict[str, object]:
    return sizes(
        draw,
        hidden_size=draw.randint(3, 40),
        state_size=draw.randint(1, 20),
        conv_kernel=draw.randint(2, 5),
        expand=draw.randint(1, 3),
        time_step_rank=draw.choice(["auto", 1, 5]),
        use_bias=flip(draw),
        use_conv_bias=flip(draw),
        residual_in_fp32=flip(draw),
        layer_norm_epsilon=draw.choice([1e-5, 1e-6]),
    )


def jamba(draw: random.Random) -> dict[str, object]:
    period, experts_period, n_experts = draw.randint(1, 6), draw.randint(1, 3), draw.randint(1, 4)
    return sizes(draw, **heads(draw)) | {
        "num_hidden_layers": draw.randint(1, 12),
        "intermediate_size": draw.randint(1, 24),
        "attn_layer_period": period,
        "attn_layer_offset": draw.randrange(period),
        "expert_layer_period": experts_period,
        "expert_layer_offset": draw.randrange(experts_period),
        "num_experts": n_experts,
        "num_experts_per_tok": draw.randint(1, n_experts),
        "mamba_d_state": draw.randint(1, 20),
        "mamba_d_conv": draw.randint(2, 5),
        "mamba_expand": draw.randint(1, 3),
        "mamba_dt_rank": draw.choice(["auto", 1, 5]),
        "mamba_conv_bias": flip(draw),
        "mamba_proj_bias": flip(draw),
    }


def mamba2(draw: random.Random) -> dict[str, object]:
    n_groups, d_head, expand = draw.randint(1, 3), draw.randint(1, 6), draw.randint(1, 3)
    n_heads = n_groups * draw.randint(1, 3) * (expand if expand > 1 else 1)
    return sizes(
        draw,
        hidden_size=n_heads * d_head // expand,
        expand=expand,
        num_heads=n_heads,
        head_dim=d_head,
        n_groups=n_groups,
        state_size=draw.randint(1, 20),
        conv_kernel=draw.randint(2, 5),
        chunk_size=draw.choice([1, 4, 16]),
        use_bias=flip(draw),
        use_conv_bias=flip(draw),
        residual_in_fp32=flip(draw),
        layer_norm_epsilon=draw.choice([1e-5, 1e-6]),
    )


def nemotron_h(draw: random.Random) -> dict[str, object]:
    n_groups = draw.randint(1, 3)
    letters = [*draw.choices("MM*-", k=draw.randint(0, 11)), draw.choice("*-")]  # else it is a Mamba-2
    kinds = {"M": "linear_attention", "*": "full_attention", "-": "mlp"}
    return {
        **heads(draw),
        "vocab_size": draw.randint(5, 40),
        "hidden_size": draw.randint(3, 40),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        "layers_block_type": [kinds[letter] for letter in letters],
        "head_dim": draw.randint(1, 8),
        "max_position_embeddings": draw.choice([64, 1000]),
        "intermediate_size": draw.randint(1, 24),
        "mlp_hidden_act": draw.choice(["relu2", "gelu", "relu"]),
        "mlp_bias": flip(draw),
        "mamba_num_heads": n_groups * draw.randint(1, 3),
        "mamba_head_dim": draw.randint(1, 6),
        "ssm_state_size": draw.randint(1, 20),
        "n_groups": n_groups,
        "conv_kernel": draw.randint(2, 5),
        "chunk_size": draw.choice([1, 4, 16]),
        "use_conv_bias": flip(draw),
        "use_bias": flip(draw),
        "layer_norm_epsilon": draw.choice([1e-5, 1e-6]),
    }


def fed(draw: random.Random, copies: int) -> dict[str, object]:
    """Layers in random order, as many as `copies` of which or more use a shared block."""
    kinds = ["hybrid"] * (copies + draw.randint(0, 3)) + ["linear_attention"] * draw.randint(1, 4)
    draw.shuffle(kinds)
    return {"num_hidden_layers": len(kinds), "layers_block_type": kinds}


def zamba(draw: random.Random) -> dict[str, object]:
    n_mamba_heads, n_heads = draw.randint(1, 3), draw.randint(1, 4)
    n_kv_heads = draw.choice([n for n in (1, 2, 3) if n_heads % n == 0])
    return sizes(draw) | {
        **fed(draw, 2),  # transformers fails to tie a single use to itself
        "hidden_size": 3 * draw.randint(1, 3) * n_mamba_heads,
        "mamba_d_state": draw.randint(1, 20),
        "mamba_d_conv": draw.randint(2, 5),
        "mamba_expand": draw.randint(1, 3),
        "mamba_dt_rank": draw.choice(["auto", 1, 5]),
        "n_mamba_heads": n_mamba_heads,
        "mamba_conv_bias": flip(draw),
        "mamba_proj_bias": flip(draw),
        "use_associative_scan": False,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "attention_head_dim": draw.choice([None, 2, 5]) if n_heads < 4 else 3,
        "intermediate_size": draw.randint(1, 24),
        "rms_norm_eps": draw.choice([1e-5, 1e-6]),
    }


def zamba2(draw: random.Random) -> dict[str, object]:
    copies, n_heads, adapted = draw.randint(1, 3), draw.randint(1, 3), flip(draw)
    n_groups, d_model = draw.randint(1, 3), draw.choice([18, 24, 36])
    n_mamba_heads = n_groups * draw.choice([n for n in (1, 2, 3) if 2 * d_model % (n_groups * n) == 0])
    return sizes(draw) | {
        **fed(draw, copies),
        "hidden_size": d_model,
        "mamba_d_state": draw.randint(1, 20),
        "mamba_d_conv": draw.randint(2, 5),
        "mamba_expand": 2,
        "mamba_ngroups": n_groups,
        "n_mamba_heads": n_mamba_heads,
        "chunk_size": draw.choice([1, 4, 16]),
        "add_bias_linear": flip(draw),
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_heads if adapted else draw.choice([n for n in (1, 2, 3) if n_heads % n == 0]),
        "use_shared_attention_adapter": adapted,
        "adapter_rank": draw.randint(1, 5),
        "use_mem_rope": flip(draw),
        "rope_parameters": {"rope_type": "default", "rope_theta": draw.choice([1e4, 100.0])},
        "num_mem_blocks": copies,
        "intermediate_size": draw.choice([None, 1, 19]),
        "rms_norm_eps": draw.choice([1e-5, 3e-6]),
    }


def flip(draw: random.Random) -> bool:
    return draw.random() < 0.5


DRAWS = {
    "llama": llama,
    "mistral": mistral,
    "mixtral": mixtral,
    "phi3": phi3,
    "mamba": mamba,
    "mamba2": mamba2,
    "jamba": jamba,
    "nemotron_h": nemotron_h,
    "zamba": zamba,
    "zamba2": zamba2,
}
