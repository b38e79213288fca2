"""Zamba (arXiv:2405.16712): Mamba layers of several heads, some fed by one attention block that is stored once.

A file has the block under the first layer that uses it. In a model whose embedding is not tied, transformers 5.23
shares no block either: there the file has it under every layer that uses it. The published model shares it, so a file
whose blocks are different is refused, and ours has the block as often as transformers wants it.
"""

from __future__ import annotations

from archc.hub.family import family
from archc.hub.pattern import pattern
from archc.hub.rules import Fact, Facts, whole
from archc.hub.table import under

MAMBA = """
    mixer_norm.weight        input_layernorm.weight
    mixer.in_proj.weight     mamba.in_proj.weight[::2]
    mixer.in_proj.bias       mamba.in_proj.bias[::2]
    mixer.conv1d.weight      mamba.conv1d.weight
    mixer.conv1d.bias        mamba.conv1d.bias
    mixer.x_proj.weight      mamba.x_proj_weight[None]     mamba.n_heads = 1
    mixer.x_proj.weight      mamba.x_proj_weight
    mixer.dt_proj.weight     mamba.dt_proj_weight[None]    mamba.n_heads = 1
    mixer.dt_proj.weight     mamba.dt_proj_weight
    mixer.dt_proj.bias       mamba.dt_proj_bias[None]      mamba.n_heads = 1
    mixer.dt_proj.bias       mamba.dt_proj_bias
    mixer.A_log              mamba.A_log[None]             mamba.n_heads = 1
    mixer.A_log              mamba.A_log
    mixer.D                  mamba.D[None]                 mamba.n_heads = 1
    mixer.D                  mamba.D
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
    mlp.gate_proj.weight    feed_forward.gate_proj.weight
    mlp.up_proj.weight      feed_forward.up_proj.weight
    mlp.down_proj.weight    feed_forward.down_proj.weight
"""
ENDS = """
    embed.weight      model.embed_tokens.weight
    norm.weight       model.final_layernorm.weight
    lm_head.weight    lm_head.weight
"""


def _listed(facts: Facts) -> list[str]:
    """The layers of a file that does not list them: the block at the third, and once in every period of the others."""
    every, offset = whole(facts, "share.every"), whole(facts, "share.offset")
    others = range(whole(facts, "n_layers") - 3)
    plain = "linear_attention"
    return [plain, plain, "hybrid", *("hybrid" if i % every == offset else plain for i in others)]


def _settle(facts: Facts) -> Facts:
    """Without the period: the list of layers says it."""
    said: dict[str, Fact] = {k: v for k, v in facts.items() if k not in ("share.every", "share.offset")}
    return said


def unfed(facts: Facts) -> str | None:
    """That no layer uses the block, and so the model is another."""
    layers = facts["layers"]
    assert isinstance(layers, tuple)
    fed = any(word.endswith("<- share") for word in layers)
    return None if fed else "layers_block_type: no layer is hybrid, and nothing but Mamba layers is no Zamba"


def _limit(facts: Facts) -> str | None:
    if problem := unfed(facts):
        return problem
    n_heads, inner = whole(facts, "mamba.n_heads"), whole(facts, "mamba.expand") * whole(facts, "d_model")
    return f"n_mamba_heads: {n_heads} does not divide an inner width of {inner}" if inner % n_heads else None


ZAMBA = family(
    name="zamba",
    title="Zamba",
    source="arXiv:2405.16712",
    architecture="ZambaForCausalLM",
    pattern=pattern(
        "layers_block_type",
        """
            linear_attention    mamba
            mamba               mamba
            hybrid              mamba <- share
        """,
        absent=_listed,
    ),
    tensors=ENDS
    + under("layers.*.", "model.layers.*.", MAMBA)
    + under("layers.{use}.", "model.layers.{use}.mamba_decoder.", MAMBA)
    + under("layers.{use}.", "model.layers.{use}.", "{share}_out.weight  linear.weight")
    + under("{share}.{copy}.", "model.layers.{home}.shared_transf.", BLOCK),
    keys="""
        vocab_size                 vocab              int      32000
        hidden_size                d_model            int      3712
        num_hidden_layers          n_layers           int      76
        max_position_embeddings    context            int      4096
        tie_word_embeddings        tied               bool     true
        rms_norm_eps               norm.eps           float    1e-5
        attn_layer_period          share.every        int      6
        attn_layer_offset          share.offset       index    4
        mamba_d_state              mamba.d_state      int      16
        mamba_d_conv               mamba.d_conv       int      4
        mamba_expand               mamba.expand       int      2
        mamba_dt_rank              mamba.dt_rank      int      "auto"    ceil(d_model / 16)
        n_mamba_heads              mamba.n_heads      int      2
        mamba_conv_bias            mamba.conv_bias    bool     true
        mamba_proj_bias            mamba.bias         bool     false
        num_attention_heads        attn.n_heads       int      16
        num_key_value_heads        attn.n_kv_heads    int      16
        attention_hidden_size      -                  int      null      only 2 * d_model
        attention_head_dim         attn.d_head        int      null      2 * d_model // attn.n_heads
        intermediate_size          geglu.d_ff         int      14848
    """,
    always="""
        norm               "rms"
        share.copies       1
        share.layer        "attn + geglu"
        share.in           "concat"
        share.in.first     "h"
        share.in.second    "embed"
        share.residual     null
        share.out          "linear"
        attn.rope          null
    """,
    follows="""
        attn.scale    1 / sqrt(attn.d_head / 2)
    """,
    only="""
        hidden_act          "gelu"    written    the gate of a generated Zamba's block uses the exact GELU
        hidden_mamba_act    "silu"    written    the gate and the convolution of a generated Mamba use SiLU
    """,
    inert="""
        use_mamba_kernels       which implementation computes the same scan
        use_associative_scan    which implementation computes the same scan
        num_logits_to_keep      for how many tokens of a prompt logits are computed
        time_step_min           initialisation
        time_step_max           initialisation
        time_step_floor         initialisation
        pad_token_id            training only: its embedding gets no gradient
    """,
    aliases="""
        layer_types    layers_block_type
        head_dim       attention_head_dim
    """,
    limit=_limit,
    settle=_settle,
)
