"""Nemotron-H (arXiv:2504.03624): layers of a single operator, Mamba-2, attention or a plain channel mixer.

NVIDIA's Mamba-2-Hybrid 8B (arXiv:2406.07887) is one of them, with GELU. Files name the backbone as `backbone`, and so
does transformers 5.23 where it writes one, though its model says `model`. It ties no head, and it limits dt from below,
at time_step_min, in whole sequences though not token by token; the published models do not limit it, and so the specs
here do not: `dt_limit` would say it. Layers of experts are not supported yet.
"""

from __future__ import annotations

from archc.hub.family import family
from archc.hub.pattern import pattern
from archc.hub.rules import Fact, Facts, whole

_MIXERS = ("relu2", "gelu", "gelu_tanh", "relu")


def _derive(facts: Facts) -> Facts:
    """The function of the channel mixers, by their kind."""
    layers = facts["layers"]
    assert isinstance(layers, tuple)
    said: dict[str, Fact] = {**facts, "mlp.kind": next((kind for kind in _MIXERS if kind in layers), None)}
    return said


def _limit(facts: Facts) -> str | None:
    if "mamba2.n_heads" not in facts:
        return None
    n_heads, n_groups = whole(facts, "mamba2.n_heads"), whole(facts, "mamba2.n_groups")
    return f"n_groups: {n_groups} does not divide {n_heads} heads" if n_heads % n_groups else None


NEMOTRON_H = family(
    name="nemotron_h",
    title="Nemotron-H",
    source="arXiv:2504.03624",
    architecture="NemotronHForCausalLM",
    pattern=pattern(
        "layers_block_type",
        """
            linear_attention    mamba2        M
            mamba               mamba2
            full_attention      attn          *
            attention           attn
            mlp                 {mlp.kind}    -
        """,
        letters="hybrid_override_pattern",
    ),
    tensors="""
        embed.weight                      backbone.embeddings.weight
        layers.*.mixer_norm.weight        backbone.layers.*.norm.weight
        layers.*.mlp_norm.weight          backbone.layers.*.norm.weight
        layers.*.mixer.in_proj.weight     backbone.layers.*.mixer.in_proj.weight
        layers.*.mixer.in_proj.bias       backbone.layers.*.mixer.in_proj.bias
        layers.*.mixer.conv1d.weight      backbone.layers.*.mixer.conv1d.weight
        layers.*.mixer.conv1d.bias        backbone.layers.*.mixer.conv1d.bias
        layers.*.mixer.A_log              backbone.layers.*.mixer.A_log
        layers.*.mixer.D                  backbone.layers.*.mixer.D
        layers.*.mixer.dt_bias            backbone.layers.*.mixer.dt_bias
        layers.*.mixer.norm.weight        backbone.layers.*.mixer.norm.weight
        layers.*.mixer.out_proj.weight    backbone.layers.*.mixer.out_proj.weight
        layers.*.mixer.out_proj.bias      backbone.layers.*.mixer.out_proj.bias
        layers.*.mixer.q_proj.weight      backbone.layers.*.mixer.q_proj.weight
        layers.*.mixer.k_proj.weight      backbone.layers.*.mixer.k_proj.weight
        layers.*.mixer.v_proj.weight      backbone.layers.*.mixer.v_proj.weight
        layers.*.mixer.o_proj.weight      backbone.layers.*.mixer.o_proj.weight
        layers.*.mlp.up_proj.weight       backbone.layers.*.mixer.up_proj.weight
        layers.*.mlp.up_proj.bias         backbone.layers.*.mixer.up_proj.bias
        layers.*.mlp.down_proj.weight     backbone.layers.*.mixer.down_proj.weight
        layers.*.mlp.down_proj.bias       backbone.layers.*.mixer.down_proj.bias
        norm.weight                       backbone.norm_f.weight
        lm_head.weight                    lm_head.weight
    """,
    keys="""
        vocab_size                 vocab                               int                        131072
        hidden_size                d_model                             int                        4096
        num_hidden_layers          n_layers                            int                        null    none
        max_position_embeddings    context                             int                        4096
        layer_norm_epsilon         norm.eps, mamba2.norm.eps           float                      1e-5
        mamba_num_heads            mamba2.n_heads                      int                        128
        mamba_head_dim             mamba2.d_head                       int                        64
        ssm_state_size             mamba2.d_state                      int                        128
        n_groups                   mamba2.n_groups                     int                        8
        conv_kernel                mamba2.d_conv                       int                        4
        use_conv_bias              mamba2.conv_bias                    bool                       true
        use_bias                   mamba2.bias                         bool                       false
        chunk_size                 mamba2.chunk                        int                        128
        num_attention_heads        attn.n_heads                        int                        32
        num_key_value_heads        attn.n_kv_heads                     int                        8       attn.n_heads
        head_dim                   attn.d_head                         int                        128
        mlp_hidden_act             mlp.kind                            among relu2, gelu, relu    "relu2"
        intermediate_size          relu2.d_ff, gelu.d_ff, relu.d_ff    int                        21504
        mlp_bias                   relu2.bias, gelu.bias, relu.bias    bool                       false
    """,
    always="""
        norm           "rms"
        tied           false
        mamba2.norm    "rms"
        attn.rope      null
    """,
    only="""
        mamba_hidden_act            "silu"             written    the gate and the convolution of Mamba-2 use SiLU
        tie_word_embeddings         false              written    transformers' Nemotron-H ties no head anyway
        attention_bias              false              written    transformers' attention has no biases anyway
        sliding_window              null               written    transformers ignores a window that this key asks for
        residual_in_fp32            false              written    transformers ignores what this key asks for
        num_nextn_predict_layers    0                  written    layers that predict further tokens are not supported
        mamba_proj_bias             false              written    transformers' Mamba-2 reads use_bias alone
        time_step_limit             [0.0, Infinity]    read       transformers reads time_step_min alone
    """,
    inert="""
        expand                                 transformers does not read it: the inner width is that of the heads
        use_mamba_kernels                      which implementation computes the same recurrence
        mamba_ssm_cache_dtype                  the type of the state
        num_logits_to_keep                     for how many tokens of a prompt logits are computed
        time_step_min                          initialisation; and transformers' least dt, as said above
        time_step_max                          initialisation
        time_step_floor                        initialisation
        time_step_rank                         transformers does not use it: Mamba-2 has no rank of dt
        rms_norm_eps                           layer_norm_epsilon says it; transformers does not read this key
        rescale_prenorm_residual               initialisation
        hidden_dropout                         training only
        n_routed_experts                       layers of experts, which are not supported
        n_shared_experts                       layers of experts, which are not supported
        moe_intermediate_size                  layers of experts, which are not supported
        moe_shared_expert_intermediate_size    layers of experts, which are not supported
        moe_latent_size                        layers of experts, which are not supported
        moe_shared_expert_overlap              layers of experts, which are not supported
        num_experts_per_tok                    layers of experts, which are not supported
        routed_scaling_factor                  layers of experts, which are not supported
        n_group                                layers of experts, which are not supported
        topk_group                             layers of experts, which are not supported
        norm_topk_prob                         layers of experts, which are not supported
        output_router_logits                   layers of experts, which are not supported
        mtp_layers_block_type                  layers that predict further tokens, of which there are none
        mtp_hybrid_override_pattern            layers that predict further tokens, of which there are none
        pad_token_id                           what tokenizers pad with
    """,
    aliases="""
        layer_types            layers_block_type
        num_local_experts      n_routed_experts
        attention_head_dim     head_dim
        mamba_n_groups         n_groups
        mamba_d_conv           conv_kernel
        mamba_expand           expand
        mamba_conv_bias        use_conv_bias
        mamba_chunk_size       chunk_size
        mamba_dt_min           time_step_min
        mamba_dt_max           time_step_max
        mamba_dt_limit         time_step_limit
        mamba_dt_init_floor    time_step_floor
    """,
    derive=_derive,
    limit=_limit,
)
