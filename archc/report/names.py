"""What others call the sizes that we name: Hugging Face's config keys, and mamba_ssm's.

Sources: config classes of transformers 5 (Jamba, Mamba, Mamba2, Llama, Mistral, Mixtral, Zamba2), MambaConfig,
Mamba and Mamba2 of mamba_ssm 2.
"""

from __future__ import annotations

from typing import NamedTuple


class Foreign(NamedTuple):
    """Names of one size elsewhere; alternatives stand in the order of the models that use them."""

    hugging_face: str
    mamba_ssm: str = ""


FOREIGN = {
    "n_layers": Foreign("num_hidden_layers", "n_layer"),
    "d_model": Foreign("hidden_size", "d_model"),
    "vocab": Foreign("vocab_size", "vocab_size"),
    "context": Foreign("max_position_embeddings"),
    "tied": Foreign("tie_word_embeddings", "tie_embeddings"),
    "residual_fp32": Foreign("residual_in_fp32", "residual_in_fp32"),
    "d_ff": Foreign("intermediate_size", "d_intermediate"),
    "n_heads": Foreign("num_attention_heads, num_heads", "attn_cfg.num_heads, nheads"),
    "n_kv_heads": Foreign("num_key_value_heads", "attn_cfg.num_heads_kv"),
    "d_head": Foreign("head_dim", "attn_cfg.head_dim, ssm_cfg.headdim"),
    "d_head_v": Foreign("v_head_dim, linear_value_head_dim"),
    "n_k_heads": Foreign("linear_num_key_heads"),
    "n_experts": Foreign("num_experts, num_local_experts"),
    "top_k": Foreign("num_experts_per_tok"),
    "d_inner": Foreign("mamba_expand * hidden_size, intermediate_size", "expand * d_model"),
    "n_groups": Foreign("n_groups, mamba_ngroups", "ssm_cfg.ngroups"),
    "d_state": Foreign("mamba_d_state, state_size", "ssm_cfg.d_state"),
    "d_conv": Foreign("mamba_d_conv, conv_kernel", "ssm_cfg.d_conv"),
    "rank": Foreign("adapter_rank"),
    "dt_rank": Foreign("mamba_dt_rank, time_step_rank", "ssm_cfg.dt_rank"),
}
