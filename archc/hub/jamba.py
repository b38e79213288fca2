"""Jamba (arXiv:2403.19887): Mamba and attention by period, dense and routed channel mixers by another."""

from __future__ import annotations

from archc.hub.family import family
from archc.hub.rules import Fact, Facts, whole


def _limit(facts: Facts) -> str | None:
    if facts.get("moe.n_experts") == 1:
        return "num_experts: transformers makes a plain channel mixer of a single expert"
    return None


def _settle(facts: Facts) -> Facts:
    """One expert means that no layer is routed."""
    if facts["moe.n_experts"] != 1:
        return facts
    n_layers = whole(facts, "n_layers")
    dense: dict[str, Fact] = {path: value for path, value in facts.items() if not path.startswith("moe.")}
    return {**dense, "moe.every": n_layers + 1, "moe.offset": n_layers}


JAMBA = family(
    name="jamba",
    title="Jamba",
    source="arXiv:2403.19887",
    architecture="JambaForCausalLM",
    layers=(("mamba", "attn"), ("swiglu", "moe")),
    tensors="""
        embed.weight                         model.embed_tokens.weight
        layers.*.mixer_norm.weight           model.layers.*.input_layernorm.weight
        layers.*.mixer.in_proj.weight        model.layers.*.mamba.in_proj.weight
        layers.*.mixer.in_proj.bias          model.layers.*.mamba.in_proj.bias
        layers.*.mixer.conv1d.weight         model.layers.*.mamba.conv1d.weight
        layers.*.mixer.conv1d.bias           model.layers.*.mamba.conv1d.bias
        layers.*.mixer.x_proj.weight         model.layers.*.mamba.x_proj.weight
        layers.*.mixer.dt_norm.weight        model.layers.*.mamba.dt_layernorm.weight
        layers.*.mixer.B_norm.weight         model.layers.*.mamba.b_layernorm.weight
        layers.*.mixer.C_norm.weight         model.layers.*.mamba.c_layernorm.weight
        layers.*.mixer.dt_proj.weight        model.layers.*.mamba.dt_proj.weight
        layers.*.mixer.dt_proj.bias          model.layers.*.mamba.dt_proj.bias
        layers.*.mixer.A_log                 model.layers.*.mamba.A_log
        layers.*.mixer.D                     model.layers.*.mamba.D
        layers.*.mixer.out_proj.weight       model.layers.*.mamba.out_proj.weight
        layers.*.mixer.out_proj.bias         model.layers.*.mamba.out_proj.bias
        layers.*.mixer.q_proj.weight         model.layers.*.self_attn.q_proj.weight
        layers.*.mixer.k_proj.weight         model.layers.*.self_attn.k_proj.weight
        layers.*.mixer.v_proj.weight         model.layers.*.self_attn.v_proj.weight
        layers.*.mixer.o_proj.weight         model.layers.*.self_attn.o_proj.weight
        layers.*.mlp_norm.weight             model.layers.*.pre_ff_layernorm.weight
        layers.*.mlp.gate_proj.weight        model.layers.*.feed_forward.gate_proj.weight
        layers.*.mlp.up_proj.weight          model.layers.*.feed_forward.up_proj.weight
        layers.*.mlp.down_proj.weight        model.layers.*.feed_forward.down_proj.weight
        layers.*.mlp.router.weight           model.layers.*.feed_forward.router.weight
        layers.*.mlp.experts.gate_proj[*]    model.layers.*.feed_forward.experts.*.gate_proj.weight
        layers.*.mlp.experts.up_proj[*]      model.layers.*.feed_forward.experts.*.up_proj.weight
        layers.*.mlp.experts.down_proj[*]    model.layers.*.feed_forward.experts.*.down_proj.weight
        norm.weight                          model.final_layernorm.weight
        lm_head.weight                       lm_head.weight
    """,
    keys="""
        vocab_size                 vocab                            int    65536
        hidden_size                d_model                          int    4096
        num_hidden_layers          n_layers                         int    32
        max_position_embeddings    context                          int    262144
        tie_word_embeddings        tied                             bool   false
        rms_norm_eps               norm.eps, mamba.inner_norm.eps   float  1e-6
        attn_layer_period          attn.every                       int    8
        attn_layer_offset          attn.offset                      index  4
        num_attention_heads        attn.n_heads                     int    32
        num_key_value_heads        attn.n_kv_heads                  int    8         attn.n_heads
        head_dim                   attn.d_head                      int    null      only d_model // attn.n_heads
        mamba_d_state              mamba.d_state                    int    16
        mamba_d_conv               mamba.d_conv                     int    4
        mamba_expand               mamba.expand                     int    2
        mamba_dt_rank              mamba.dt_rank                    int    "auto"    ceil(d_model / 16)
        mamba_conv_bias            mamba.conv_bias                  bool   true
        mamba_proj_bias            mamba.bias                       bool   false
        intermediate_size          swiglu.d_ff, moe.d_ff            int    14336
        expert_layer_period        moe.every                        int    2
        expert_layer_offset        moe.offset                       index  1
        num_experts                moe.n_experts                    int    16
        num_experts_per_tok        moe.top_k                        int    2
    """,
    always="""
        norm                 "rms"
        mamba.inner_norm     "rms"
        moe.expert           "swiglu"
        moe.router           "softmax"
        moe.router.renorm    false
    """,
    only="""
        hidden_act                "silu"    written    the gate and the convolution of a generated Jamba use SiLU
        mamba_inner_layernorms    true      read       transformers always norms dt, B and C
        sliding_window            null      read       transformers' Jamba ignores a window that this key asks for
    """,
    inert="""
        use_mamba_kernels                which implementation computes the same scan
        use_mambapy                      which implementation computes the same scan
        use_associative_scan             which implementation computes the same scan
        num_logits_to_keep               for how many tokens of a prompt logits are computed
        calc_logits_for_entire_prompt    for how many tokens of a prompt logits are computed
        n_ctx                            max_position_embeddings again
        output_router_logits             training only: whether the balancing loss is added
        router_aux_loss_coef             training only: weight of the balancing loss
        pad_token_id                     training only: its embedding gets no gradient
    """,
    aliases="""
        num_local_experts    num_experts
    """,
    limit=_limit,
    settle=_settle,
)
