"""Which configurations are compared: random ones whose structure is pinned, and in the heavy run wholly random ones."""

from __future__ import annotations

from typing import Any

from tests.hub.configs import FAMILIES, random_config

N_HEAVY = 20
PLAIN, FED = "linear_attention", "hybrid"  # layers of a Zamba, without the shared block and with it

# What every family is proved on, at least; sizes that are not named here are drawn.
PINNED: dict[str, list[dict[str, object]]] = {
    "mamba": [
        {"tie_word_embeddings": True, "time_step_rank": "auto", "conv_kernel": 4, "state_size": 16, "hidden_size": 40},
        {"tie_word_embeddings": False, "time_step_rank": 5, "conv_kernel": 2, "state_size": 3, "use_bias": True},
        {"tie_word_embeddings": True, "time_step_rank": 1, "conv_kernel": 3, "state_size": 1, "use_conv_bias": False},
        {"tie_word_embeddings": False, "expand": 3, "conv_kernel": 5, "state_size": 20, "residual_in_fp32": False},
        {"tie_word_embeddings": True, "expand": 1, "hidden_size": 17, "num_hidden_layers": 7,
         "layer_norm_epsilon": 1e-3},
    ],
    "jamba": [
        {"num_hidden_layers": 8, "attn_layer_period": 8, "attn_layer_offset": 4, "num_experts": 4, "hidden_size": 24,
         "num_attention_heads": 4, "num_key_value_heads": 2, "expert_layer_period": 2, "expert_layer_offset": 1,
         "num_experts_per_tok": 2, "mamba_dt_rank": 6, "tie_word_embeddings": False},
        {"num_experts": 1, "num_experts_per_tok": 1, "num_hidden_layers": 5, "attn_layer_period": 3,
         "attn_layer_offset": 1, "mamba_dt_rank": "auto", "hidden_size": 36, "num_attention_heads": 9,
         "num_key_value_heads": 3, "tie_word_embeddings": True},
        {"num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 0, "expert_layer_period": 3,
         "expert_layer_offset": 0, "num_experts": 3, "num_experts_per_tok": 1, "mamba_d_conv": 2, "mamba_d_state": 5,
         "mamba_dt_rank": 3, "mamba_conv_bias": False, "mamba_proj_bias": True},
        {"num_hidden_layers": 3, "attn_layer_period": 9, "attn_layer_offset": 8, "expert_layer_period": 1,
         "expert_layer_offset": 0, "num_experts": 5, "num_experts_per_tok": 5, "mamba_d_conv": 3, "mamba_dt_rank": 2,
         "mamba_expand": 3, "mamba_d_state": 16},
        {"num_hidden_layers": 4, "attn_layer_period": 1, "attn_layer_offset": 0, "expert_layer_period": 2,
         "expert_layer_offset": 0, "num_experts": 7, "num_experts_per_tok": 3, "hidden_size": 20,
         "num_attention_heads": 5, "num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    ],
    "llama": [
        {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": None,
         "num_hidden_layers": 3, "tie_word_embeddings": False},
        {"hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": None,
         "tie_word_embeddings": True},
        {"hidden_size": 28, "num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 10},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_hidden_layers": 4},
        {"attention_bias": True, "mlp_bias": False, "tie_word_embeddings": False,
         "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
    ],
    "mistral": [
        {"sliding_window": 3, "hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": None,
         "num_hidden_layers": 3},
        {"sliding_window": None, "hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 5,
         "head_dim": None},
        {"sliding_window": None, "hidden_size": 31, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 4},
        {"sliding_window": 18, "hidden_size": 33, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 14,
         "tie_word_embeddings": True},
        {"sliding_window": 2, "tie_word_embeddings": False, "num_hidden_layers": 6},
    ],
    "mixtral": [
        {"num_local_experts": 8, "num_experts_per_tok": 2, "hidden_size": 48, "num_attention_heads": 6,
         "num_key_value_heads": 2, "head_dim": None, "sliding_window": None, "tie_word_embeddings": False},
        {"num_local_experts": 5, "num_experts_per_tok": 3, "hidden_size": 30, "num_attention_heads": 5,
         "num_key_value_heads": 1, "head_dim": None, "tie_word_embeddings": True},
        {"num_local_experts": 4, "num_experts_per_tok": 4, "sliding_window": 7, "num_hidden_layers": 4},
        {"num_local_experts": 1, "num_experts_per_tok": 1, "sliding_window": None},
        {"num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": 4, "hidden_size": 27, "head_dim": 6,
         "num_attention_heads": 3, "num_key_value_heads": 3},
    ],
    "mamba2": [
        {"num_heads": 6, "head_dim": 8, "hidden_size": 24, "expand": 2, "n_groups": 2, "chunk_size": 4,
         "tie_word_embeddings": True, "num_hidden_layers": 3, "conv_kernel": 4},
        {"num_heads": 3, "head_dim": 5, "hidden_size": 15, "expand": 1, "n_groups": 3, "state_size": 7,
         "use_bias": True, "use_conv_bias": False, "tie_word_embeddings": False, "chunk_size": 1},
        {"num_heads": 9, "head_dim": 4, "hidden_size": 12, "expand": 3, "n_groups": 1, "residual_in_fp32": True,
         "conv_kernel": 2, "tie_word_embeddings": True, "layer_norm_epsilon": 1e-3},
    ],
    "nemotron_h": [  # the first is NVIDIA's Mamba-2-Hybrid 8B, shrunk
        {"layers_block_type": [{"M": "linear_attention", "*": "full_attention", "-": "mlp"}[c] for c in "M-M--M*-M-"],
         "mlp_hidden_act": "gelu", "mlp_bias": False, "hidden_size": 24, "num_attention_heads": 4, "head_dim": 6,
         "num_key_value_heads": 1, "n_groups": 2, "mamba_num_heads": 6, "mamba_head_dim": 8, "use_bias": False},
        {"mlp_hidden_act": "relu2", "mlp_bias": True, "n_groups": 3, "mamba_num_heads": 3, "mamba_head_dim": 5,
         "use_bias": True, "use_conv_bias": False, "num_attention_heads": 9, "num_key_value_heads": 3,
         "layers_block_type": ["mlp", "linear_attention", "linear_attention", "full_attention"]},
    ],
    "zamba": [
        {"n_mamba_heads": 2, "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 4,
         "attention_head_dim": None, "mamba_expand": 2, "mamba_dt_rank": "auto", "tie_word_embeddings": True,
         "num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 1, "layers_block_type": None},
        {"n_mamba_heads": 3, "hidden_size": 15, "num_attention_heads": 3, "num_key_value_heads": 1,
         "attention_head_dim": 5, "mamba_proj_bias": True, "mamba_conv_bias": False, "tie_word_embeddings": False},
        {"n_mamba_heads": 1, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2,
         "mamba_proj_bias": True, "mamba_conv_bias": True, "tie_word_embeddings": True},
    ],
    "zamba2": [
        {"num_mem_blocks": 2, "layers_block_type": [PLAIN, FED, FED, PLAIN, FED], "num_hidden_layers": 5,
         "tie_word_embeddings": True, "use_mem_rope": True, "use_shared_attention_adapter": True, "adapter_rank": 3,
         "num_attention_heads": 2, "num_key_value_heads": 2, "add_bias_linear": False, "intermediate_size": 20,
         "mamba_d_state": 16, "hidden_size": 24, "n_mamba_heads": 4, "mamba_ngroups": 2, "chunk_size": 16},
        {"num_mem_blocks": 3, "layers_block_type": [FED, FED, PLAIN, FED, FED], "num_hidden_layers": 5,
         "tie_word_embeddings": False, "use_mem_rope": True, "use_shared_attention_adapter": True, "adapter_rank": 2,
         "num_attention_heads": 3, "num_key_value_heads": 3, "add_bias_linear": True, "intermediate_size": 8,
         "mamba_ngroups": 3, "n_mamba_heads": 6, "hidden_size": 24, "chunk_size": 4},
        {"num_mem_blocks": 1, "layers_block_type": [PLAIN, FED, FED], "num_hidden_layers": 3, "hidden_size": 24,
         "tie_word_embeddings": True, "use_mem_rope": False, "use_shared_attention_adapter": False,
         "num_attention_heads": 3, "num_key_value_heads": 1, "add_bias_linear": False, "mamba_ngroups": 2,
         "n_mamba_heads": 4},
    ],
    "phi3": [
        {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 2, "sliding_window": 3,
         "num_hidden_layers": 3, "tie_word_embeddings": False,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 5, "sliding_window": None,
         "tie_word_embeddings": True, "num_hidden_layers": 4,
         "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "partial_rotary_factor": 1.0}},
        {"hidden_size": 42, "num_attention_heads": 3, "num_key_value_heads": 1, "sliding_window": 16,
         "rope_parameters": {"rope_type": "default", "rope_theta": 7.0, "partial_rotary_factor": 0.75}},
    ],
}  # fmt: skip

CASES = [(name, i) for name, pinned in PINNED.items() for i in range(len(pinned))]
HEAVY = [(name, i) for name in FAMILIES for i in range(N_HEAVY)]


def pinned_config(name: str, i: int) -> Any:
    """The i-th configuration that names what it is for."""
    return random_config(name, 1000 + i, **PINNED[name][i])


def any_config(name: str, i: int) -> Any:
    """The i-th wholly random configuration of those that fp32 can decide about."""
    found = (config for seed in range(10_000) if well_conditioned(config := random_config(name, seed)))
    return next(config for j, config in enumerate(found) if j == i)


def well_conditioned(config: Any) -> bool:
    """Whether no gradient is zero but for rounding, so that two right answers agree in its leading figures.

    The norm of a single number, or of a group of one, is its sign, and the only weight of a renormalised choice of one
    is one.
    """
    if config.model_type == "jamba":
        return bool(min(config.mamba_dt_rank, config.mamba_d_state) > 1)
    if config.model_type == "mixtral":
        return bool(config.num_experts_per_tok > 1 or config.num_local_experts == 1)
    if config.model_type == "mamba2":
        return bool(config.num_heads * config.head_dim > config.n_groups)
    if config.model_type == "nemotron_h":
        return bool(config.mamba_num_heads * config.mamba_head_dim > config.n_groups)
    return True
