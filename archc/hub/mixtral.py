"""Mixtral (arXiv:2401.04088): Mistral's layers with routed experts, whose chosen weights sum to one."""

from __future__ import annotations

from archc.hub.family import family

MIXTRAL = family(
    name="mixtral",
    title="Mixtral",
    source="arXiv:2401.04088",
    architecture="MixtralForCausalLM",
    layers=(("attn",), ("moe",)),
    tensors="""
        embed.weight                         model.embed_tokens.weight
        layers.*.mixer_norm.weight           model.layers.*.input_layernorm.weight
        layers.*.mixer.q_proj.weight         model.layers.*.self_attn.q_proj.weight
        layers.*.mixer.k_proj.weight         model.layers.*.self_attn.k_proj.weight
        layers.*.mixer.v_proj.weight         model.layers.*.self_attn.v_proj.weight
        layers.*.mixer.o_proj.weight         model.layers.*.self_attn.o_proj.weight
        layers.*.mlp_norm.weight             model.layers.*.post_attention_layernorm.weight
        layers.*.mlp.router.weight           model.layers.*.block_sparse_moe.gate.weight
        layers.*.mlp.experts.gate_proj[*]    model.layers.*.block_sparse_moe.experts.*.w1.weight
        layers.*.mlp.experts.up_proj[*]      model.layers.*.block_sparse_moe.experts.*.w3.weight
        layers.*.mlp.experts.down_proj[*]    model.layers.*.block_sparse_moe.experts.*.w2.weight
        norm.weight                          model.norm.weight
        lm_head.weight                       lm_head.weight
    """,
    keys="""
        vocab_size                    vocab              int    32000
        hidden_size                   d_model            int    4096
        num_hidden_layers             n_layers           int    32
        max_position_embeddings       context            int    131072
        tie_word_embeddings           tied               bool   false
        rms_norm_eps                  norm.eps           float  1e-5
        num_attention_heads           attn.n_heads       int    32
        num_key_value_heads           attn.n_kv_heads    int    8            attn.n_heads
        head_dim                      attn.d_head        int    null         d_model // attn.n_heads
        rope_parameters.rope_theta    attn.rope.theta    float  1000000.0
        sliding_window                attn.window        int    null         none
        intermediate_size             moe.d_ff           int    14336
        num_local_experts             moe.n_experts      int    8
        num_experts_per_tok           moe.top_k          int    2
    """,
    always="""
        norm                 "rms"
        attn.rope            "rope"
        moe.expert           "swiglu"
        moe.router           "softmax"
        moe.router.renorm    true
    """,
    only="""
        hidden_act                               "silu"       written    the experts of a generated Mixtral use SiLU
        router_jitter_noise                      0.0          written    noise on the router's input in training
        rope_parameters.rope_type                "default"    written    scaled rotary positions are not supported yet
        rope_parameters.partial_rotary_factor    1.0          read       transformers' Mixtral ignores this key
    """,
    inert="""
        output_router_logits    training only: whether the balancing loss is added
        router_aux_loss_coef    training only: weight of the balancing loss
        pad_token_id            training only: its embedding gets no gradient
    """,
    aliases="""
        num_experts              num_local_experts
        rope_scaling             rope_parameters
        rope_theta               rope_parameters.rope_theta
        partial_rotary_factor    rope_parameters.partial_rotary_factor
        rope_parameters.type     rope_parameters.rope_type
    """,
)
