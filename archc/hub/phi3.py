"""Phi-3 (arXiv:2404.14219): Mistral's layers, the projections that share an input stored as one matrix."""

from __future__ import annotations

import math

from archc.hub.family import Config, family
from archc.hub.rules import Fact, Facts, whole

SHARE = "rope_parameters.partial_rotary_factor"


def _limit(facts: Facts) -> str | None:
    share, d_head = facts["attn.rope.share"], whole(facts, "attn.d_head")
    assert isinstance(share, float)
    dims = int(d_head * share)
    if share > 1:
        return f"{SHARE}: {share} is more than the whole head"
    if dims == 0 or dims % 2:
        return f"{SHARE}: {share} of {d_head} dimensions is {dims}, and rotary positions turn pairs"
    return None


def _settle(facts: Facts) -> Facts:
    """The share of a head that is rotated, as dimensions."""
    share, d_head = facts["attn.rope.share"], whole(facts, "attn.d_head")
    assert isinstance(share, float)
    dims = int(d_head * share)
    said: dict[str, Fact] = {**facts, "attn.rope.dims": None if dims == d_head else dims}
    return said


def _derive(facts: Facts) -> Facts:
    """The dimensions that are rotated, as a share of the head that transformers rounds down to them."""
    said: dict[str, Fact] = dict(facts)
    dims, d_head = said.pop("attn.rope.dims", None), said.get("attn.d_head")
    if "attn.rope" in said and isinstance(d_head, int):
        assert dims is None or isinstance(dims, int)
        share = (dims or d_head) / d_head
        said["attn.rope.share"] = share if int(d_head * share) == (dims or d_head) else math.nextafter(share, 1)
    return said


def _write(config: Config) -> Config:
    """Without the padding token that transformers assumes, which a small vocabulary has not."""
    return {**config, "pad_token_id": None}


PHI3 = family(
    name="phi3",
    title="Phi-3",
    source="arXiv:2404.14219",
    architecture="Phi3ForCausalLM",
    layers=(("attn",), ("swiglu",)),
    tensors="""
        embed.weight                     model.embed_tokens.weight
        layers.*.mixer_norm.weight       model.layers.*.input_layernorm.weight
        layers.*.mixer.q_proj.weight     model.layers.*.self_attn.qkv_proj.weight[0]
        layers.*.mixer.k_proj.weight     model.layers.*.self_attn.qkv_proj.weight[1]
        layers.*.mixer.v_proj.weight     model.layers.*.self_attn.qkv_proj.weight[2]
        layers.*.mixer.o_proj.weight     model.layers.*.self_attn.o_proj.weight
        layers.*.mlp_norm.weight         model.layers.*.post_attention_layernorm.weight
        layers.*.mlp.gate_proj.weight    model.layers.*.mlp.gate_up_proj.weight[0]
        layers.*.mlp.up_proj.weight      model.layers.*.mlp.gate_up_proj.weight[1]
        layers.*.mlp.down_proj.weight    model.layers.*.mlp.down_proj.weight
        norm.weight                      model.norm.weight
        lm_head.weight                   lm_head.weight
    """,
    keys="""
        vocab_size                               vocab              int      32064
        hidden_size                              d_model            int      3072
        num_hidden_layers                        n_layers           int      32
        max_position_embeddings                  context            int      4096
        tie_word_embeddings                      tied               bool     false
        rms_norm_eps                             norm.eps           float    1e-5
        num_attention_heads                      attn.n_heads       int      32
        num_key_value_heads                      attn.n_kv_heads    int      null    attn.n_heads
        head_dim                                 attn.d_head        int      null    only d_model // attn.n_heads
        rope_parameters.rope_theta               attn.rope.theta    float    10000.0
        rope_parameters.partial_rotary_factor    attn.rope.share    float    1.0
        sliding_window                           attn.window        int      null    none
        intermediate_size                        swiglu.d_ff        int      8192
    """,
    always="""
        norm         "rms"
        attn.rope    "rope"
    """,
    only="""
        hidden_act                   "silu"       written    the gate of a generated Phi-3 uses SiLU
        rope_parameters.rope_type    "default"    written    scaled rotary positions are not supported yet
        attention_bias               false        read       transformers' Phi-3 ignores this key
    """,
    inert="""
        original_max_position_embeddings    of scaled rotary positions alone
        resid_pdrop                         training only
        embd_pdrop                          training only
        pad_token_id                        training only: its embedding gets no gradient
    """,
    aliases="""
        rope_scaling             rope_parameters
        rope_theta               rope_parameters.rope_theta
        partial_rotary_factor    rope_parameters.partial_rotary_factor
        rope_parameters.type     rope_parameters.rope_type
    """,
    limit=_limit,
    settle=_settle,
    derive=_derive,
    write=_write,
)
