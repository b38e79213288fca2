"""Zamba2 (arXiv:2411.15242): Mamba-2 layers, some fed by attention blocks that take turns, adapted at each use.

A file has a block under the first layer that uses it, the adapters of all its uses beside it, by their number. Where
the embedding is not tied, transformers 5.23 shares no block, as `hub/zamba.py` says. It limits dt from below, at
time_step_min, in whole sequences though not token by token; the published model never does, and so the specs here do
not: `dt_limit` would say it.
"""

from __future__ import annotations

from archc.hub.family import family
from archc.hub.mamba2 import inner_problem, with_expand
from archc.hub.pattern import pattern
from archc.hub.rules import Fact, Facts, whole
from archc.hub.table import under
from archc.hub.zamba import ENDS, unfed

MAMBA2 = """
    mixer_norm.weight        input_layernorm.weight
    mixer.in_proj.weight     mamba.in_proj.weight
    mixer.in_proj.bias       mamba.in_proj.bias
    mixer.conv1d.weight      mamba.conv1d.weight
    mixer.conv1d.bias        mamba.conv1d.bias
    mixer.A_log              mamba.A_log
    mixer.D                  mamba.D
    mixer.dt_bias            mamba.dt_bias
    mixer.norm.weight        mamba.norm.weight
    mixer.out_proj.weight    mamba.out_proj.weight
    mixer.out_proj.bias      mamba.out_proj.bias
"""
BLOCK = """
    mixer_norm.weight       input_layernorm.weight
    mixer.q_proj.weight     self_attn.q_proj.weight
    mixer.k_proj.weight     self_attn.k_proj.weight
    mixer.v_proj.weight     self_attn.v_proj.weight
    mixer.o_proj.weight     self_attn.o_proj.weight
    mlp_norm.weight         pre_ff_layernorm.weight
    mlp.gate_proj.weight    feed_forward.gate_up_proj.weight[0]
    mlp.up_proj.weight      feed_forward.gate_up_proj.weight[1]
    mlp.gate_proj.bias      feed_forward.gate_up_proj.bias[0]
    mlp.up_proj.bias        feed_forward.gate_up_proj.bias[1]
    mlp.down_proj.weight    feed_forward.down_proj.weight
    mlp.down_proj.bias      feed_forward.down_proj.bias
"""
ADAPTERS = """
    mixer.q_adapter_A.weight        self_attn.linear_q_adapter_list.{nth}.0.weight
    mixer.q_adapter_B.weight        self_attn.linear_q_adapter_list.{nth}.1.weight
    mixer.k_adapter_A.weight        self_attn.linear_k_adapter_list.{nth}.0.weight
    mixer.k_adapter_B.weight        self_attn.linear_k_adapter_list.{nth}.1.weight
    mixer.v_adapter_A.weight        self_attn.linear_v_adapter_list.{nth}.0.weight
    mixer.v_adapter_B.weight        self_attn.linear_v_adapter_list.{nth}.1.weight
    mlp.gate_up_adapter_A.weight    feed_forward.gate_up_proj_adapter_list.{nth}.0.weight
    mlp.gate_up_adapter_B.weight    feed_forward.gate_up_proj_adapter_list.{nth}.1.weight
"""
PLAIN = "linear_attention"
# What transformers puts for a file that lists no layers: those of the 2.7B.
DEFAULT = [PLAIN, *[*[PLAIN] * 5, "hybrid"] * 7, *[PLAIN] * 4, "hybrid", *[PLAIN] * 3, "hybrid", *[PLAIN] * 2]


def _settle(facts: Facts) -> Facts:
    """Copies that no layer uses are none, and where attention is not adapted there is no rank."""
    said: dict[str, Fact] = dict(facts)
    layers = said["layers"]
    assert isinstance(layers, tuple)
    said["share.copies"] = min(whole(facts, "share.copies"), sum("<-" in word for word in layers))
    if said["attn.lora"] is None:
        del said["attn.rank"]
    return said


def _limit(facts: Facts) -> str | None:
    if problem := unfed(facts):
        return problem
    if facts.get("attn.lora") is not None:
        n_heads, n_kv_heads = whole(facts, "attn.n_heads"), whole(facts, "attn.n_kv_heads")
        if n_heads != n_kv_heads:
            return f"num_key_value_heads: transformers' adapters want as many as query heads, {n_heads}"
        if 2 * whole(facts, "d_model") % n_heads:
            return f"num_attention_heads: {n_heads} does not divide 2 * hidden_size, and transformers' adapters want it"
    return inner_problem(facts, expand="mamba_expand", heads="n_mamba_heads * mamba_headdim", groups="mamba_ngroups")


ZAMBA2 = family(
    name="zamba2",
    title="Zamba2",
    source="arXiv:2411.15242",
    architecture="Zamba2ForCausalLM",
    pattern=pattern(
        "layers_block_type",
        """
            linear_attention    mamba2
            mamba               mamba2
            hybrid              mamba2 <- share
        """,
        again="hybrid_layer_ids",
        absent=lambda _: DEFAULT,
    ),
    tensors=ENDS
    + under("layers.*.", "model.layers.*.", MAMBA2)
    + under("layers.{use}.", "model.layers.{use}.mamba_decoder.", MAMBA2)
    + under("layers.{use}.", "model.layers.{use}.", "{share}_out.weight  linear.weight")
    + under("layers.{use}.{share}_use.", "model.layers.{home}.shared_transformer.", ADAPTERS)
    + under("{share}.{copy}.", "model.layers.{home}.shared_transformer.", BLOCK),
    keys="""
        vocab_size                      vocab                      int        32000
        hidden_size                     d_model                    int        2560
        num_hidden_layers               n_layers                   int        54
        max_position_embeddings         context                    int        4096
        tie_word_embeddings             tied                       bool       true
        rms_norm_eps                    norm.eps                   float      1e-5
        mamba_d_state                   mamba2.d_state             int        64
        mamba_d_conv                    mamba2.d_conv              int        4
        mamba_expand                    mamba2.expand              int        2
        n_mamba_heads                   mamba2.n_heads             int        8
        mamba_headdim                   mamba2.d_head              int        null    expand * d_model // n_heads
        mamba_ngroups                   mamba2.n_groups            int        1
        chunk_size                      mamba2.chunk               int        256
        add_bias_linear                 mamba2.bias, geglu.bias    bool       false
        num_attention_heads             attn.n_heads               int        32
        num_key_value_heads             attn.n_kv_heads            int        null    attn.n_heads
        attention_hidden_size           -                          int        null    only 2 * d_model
        attention_head_dim              attn.d_head                int        null    only 2 * d_model // attn.n_heads
        use_mem_rope                    attn.rope                  is rope    false
        rope_parameters.rope_theta      attn.rope.theta            float      10000.0
        use_shared_attention_adapter    attn.lora                  is lora    false
        adapter_rank                    attn.rank, geglu.rank      int        128
        intermediate_size               geglu.d_ff                 int        null    4 * d_model
        num_mem_blocks                  share.copies               int        1
    """,
    always="""
        norm                "rms"
        mamba2.norm         "rms"
        mamba2.norm.eps     1e-5
        mamba2.conv_bias    true
        share.layer         "attn + geglu"
        share.in            "concat"
        share.in.first      "h"
        share.in.second     "embed"
        share.residual      null
        share.out           "linear"
        attn.lora.on        "q, k, v"
        geglu.lora          "lora"
        geglu.lora.on       "gate_up"
    """,
    follows="""
        attn.scale    1 / sqrt(attn.d_head / 2)
    """,
    only="""
        hidden_act                               "gelu"       written    the gate of a block uses the exact GELU
        use_conv_bias                            true         written    transformers' convolution has a bias anyway
        use_long_context                         false        written    rescaled rotary positions are not supported yet
        rope_parameters.rope_type                "default"    read       scaled rotary positions are not supported yet
        rope_parameters.partial_rotary_factor    1.0          read       transformers' Zamba2 ignores this key
        sliding_window                           null         read       transformers' Zamba2 ignores a window
        gated_linear_unit                        true         read       the channel mixer of a Zamba2 has a gate
        ft_lora                                  false        read       adapters of a fine-tuning are not supported
        use_shared_block_lora                    true         read       the channel mixer of a Zamba2 is adapted
    """,
    inert="""
        use_mamba_kernels     which implementation computes the same recurrence
        use_mem_eff_path      which implementation computes the same recurrence
        num_logits_to_keep    for how many tokens of a prompt logits are computed
        time_step_min         initialisation; and transformers' least dt, as said above
        time_step_max         initialisation
        time_step_floor       initialisation
        kv_channels           hidden_size / num_attention_heads; transformers does not read it
        num_query_groups      num_attention_heads; transformers does not read it
        pad_token_id          training only: its embedding gets no gradient
    """,
    aliases="""
        lora_rank                    adapter_rank
        ffn_hidden_size              intermediate_size
        use_shared_attention_lora    use_shared_attention_adapter
        layer_types                  layers_block_type
        head_dim                     attention_head_dim
        rope_scaling                 rope_parameters
        rope_theta                   rope_parameters.rope_theta
        partial_rotary_factor        rope_parameters.partial_rotary_factor
        rope_parameters.type         rope_parameters.rope_type
    """,
    derive=with_expand,
    limit=_limit,
    settle=_settle,
)
