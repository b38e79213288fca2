"""Llama (arXiv:2302.13971, arXiv:2307.09288, arXiv:2407.21783): full attention with rotary positions, and SwiGLU."""

from __future__ import annotations

from archc.hub.family import family
from archc.hub.rules import Facts, whole


def _limit(facts: Facts) -> str | None:
    if whole(facts, "d_model") % whole(facts, "attn.n_heads"):
        return "num_attention_heads: transformers' Llama wants a divisor of hidden_size"
    return None


LLAMA = family(
    name="llama",
    title="Llama",
    source="arXiv:2307.09288",
    architecture="LlamaForCausalLM",
    layers=(("attn",), ("swiglu",)),
    tensors="""
        embed.weight                     model.embed_tokens.weight
        layers.*.mixer_norm.weight       model.layers.*.input_layernorm.weight
        layers.*.mixer.q_proj.weight     model.layers.*.self_attn.q_proj.weight
        layers.*.mixer.q_proj.bias       model.layers.*.self_attn.q_proj.bias
        layers.*.mixer.k_proj.weight     model.layers.*.self_attn.k_proj.weight
        layers.*.mixer.k_proj.bias       model.layers.*.self_attn.k_proj.bias
        layers.*.mixer.v_proj.weight     model.layers.*.self_attn.v_proj.weight
        layers.*.mixer.v_proj.bias       model.layers.*.self_attn.v_proj.bias
        layers.*.mixer.o_proj.weight     model.layers.*.self_attn.o_proj.weight
        layers.*.mixer.o_proj.bias       model.layers.*.self_attn.o_proj.bias
        layers.*.mlp_norm.weight         model.layers.*.post_attention_layernorm.weight
        layers.*.mlp.gate_proj.weight    model.layers.*.mlp.gate_proj.weight
        layers.*.mlp.gate_proj.bias      model.layers.*.mlp.gate_proj.bias
        layers.*.mlp.up_proj.weight      model.layers.*.mlp.up_proj.weight
        layers.*.mlp.up_proj.bias        model.layers.*.mlp.up_proj.bias
        layers.*.mlp.down_proj.weight    model.layers.*.mlp.down_proj.weight
        layers.*.mlp.down_proj.bias      model.layers.*.mlp.down_proj.bias
        norm.weight                      model.norm.weight
        lm_head.weight                   lm_head.weight
    """,
    keys="""
        vocab_size                    vocab                       int    32000
        hidden_size                   d_model                     int    4096
        num_hidden_layers             n_layers                    int    32
        max_position_embeddings       context                     int    2048
        tie_word_embeddings           tied                        bool   false
        rms_norm_eps                  norm.eps                    float  1e-6
        num_attention_heads           attn.n_heads                int    32
        num_key_value_heads           attn.n_kv_heads             int    null       attn.n_heads
        head_dim                      attn.d_head                 int    null       d_model // attn.n_heads
        rope_parameters.rope_theta    attn.rope.theta             float  10000.0
        attention_bias                attn.bias, attn.out_bias    bool   false
        intermediate_size             swiglu.d_ff                 int    11008
        mlp_bias                      swiglu.bias                 bool   false
    """,
    always="""
        norm         "rms"
        attn.rope    "rope"
    """,
    only="""
        hidden_act                               "silu"       written    the gate of a generated Llama uses SiLU
        rope_parameters.rope_type                "default"    written    scaled rotary positions are not supported yet
        rope_parameters.partial_rotary_factor    1.0          read       transformers' Llama ignores this key
    """,
    inert="""
        pretraining_tp    how an older version split the same products
        pad_token_id      training only: its embedding gets no gradient
    """,
    aliases="""
        rope_scaling             rope_parameters
        rope_theta               rope_parameters.rope_theta
        partial_rotary_factor    rope_parameters.partial_rotary_factor
        rope_parameters.type     rope_parameters.rope_type
    """,
    limit=_limit,
)
