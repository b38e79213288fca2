"""Samba (arXiv:2406.07522) under the names of the program that trained it, a fork of lit-gpt.

Its checkpoints are what a training loop saved, beside no configuration; `lit_config.json` holds the arguments of its
`Config`, as lit-gpt writes them. Attention's projections are one matrix, with the queries of each group before its keys
and its values. Defaults are those of the program.
"""

from __future__ import annotations

from collections.abc import Mapping

from archc.hub.family import family
from archc.hub.read import UnsupportedConfig
from archc.hub.rules import Fact, Facts, whole

_WANTED: dict[str, tuple[str, Fact]] = {
    "parallel": ("parallel_residual", False),
    "norm_class": ("_norm_class", "FusedRMSNorm"),
    "mlp_class": ("_mlp_class", "LLaMAMLP"),
}
_UNSET = {"local_window": -1, "mb_per_layer": -1, "ret_per_layer": -1, "gla_per_layer": -1}  # their words for none


def config_of(config: Mapping[str, object]) -> dict[str, object]:
    """The keys that say something. Raises UnsupportedConfig for those that have to."""
    said = {key: value for key, value in config.items() if key not in _UNSET or value != _UNSET[key]}
    missing = [key for key in ("mb_per_layer", "intermediate_size") if said.get(key) is None]
    if missing:
        raise UnsupportedConfig(*((key, "it is missing, and a Samba has it") for key in missing))
    return said


def _written(config: Mapping[str, object]) -> dict[str, object]:
    """The keys with their words for none."""
    return {key: _UNSET.get(key) if value is None else value for key, value in config.items()}


def _settle(facts: Facts) -> Facts:
    """Sizes that the program works out, and what its flags mean."""
    said: dict[str, Fact] = dict(facts)
    if said["vocab"] is None:
        multiple = whole(facts, "vocab.multiple")
        said["vocab"] = -(-whole(facts, "vocab.size") // multiple) * multiple
    share, d_head = said["rotary.share"], whole(facts, "attn.d_head")
    assert isinstance(share, float)
    dims = int(share * d_head)
    said["attn.rope"] = None if said["nope"] else "rope"
    said |= {"attn.rope.theta": 1e4, "attn.rope.dims": None if dims == d_head else dims}
    said["attn.window"] = None if said["attn.window"] == -1 else said["attn.window"]
    return said


def _derive(facts: Facts) -> Facts:
    """Flags and shares."""
    said: dict[str, Fact] = {**facts, **{path: value for path, (_, value) in _WANTED.items()}}
    if "attn.n_heads" in said:
        rope, dims, d_head = said.pop("attn.rope"), said.pop("attn.rope.dims", None), said["attn.d_head"]
        assert isinstance(d_head, int)
        assert dims is None or isinstance(dims, int)
        said |= {"nope": rope is None, "rotary.share": (dims or d_head) / d_head}
    return said


def _limit(facts: Facts) -> str | None:
    for path, (key, wanted) in _WANTED.items():
        if facts[path] != wanted and not (path == "norm_class" and facts[path] == "RMSNorm"):
            return f"{key}: {facts[path]!r} is not supported, only {wanted!r}"
    if whole(facts, "mamba.every") < 1:
        return "mb_per_layer: a Samba has Mamba layers"
    if "attn.d_head" in facts and not facts["nope"]:
        share, d_head = facts["rotary.share"], whole(facts, "attn.d_head")
        assert isinstance(share, float)
        if share > 1 or int(share * d_head) % 2 or not int(share * d_head):
            return f"rotary_percentage: {share} of {d_head} dimensions are no pairs, which rotary positions turn"
    return None


SAMBA = family(
    name="samba",
    title="Samba",
    source="arXiv:2406.07522",
    architecture="",
    layers=(("attn", "mamba"), ("swiglu",)),
    tensors="""
        embed.weight                      transformer.wte.weight
        layers.*.mixer_norm.weight        transformer.h.*.norm_1.weight
        layers.*.mixer.in_proj.weight     transformer.h.*.attn.in_proj.weight
        layers.*.mixer.conv1d.weight      transformer.h.*.attn.conv1d.weight
        layers.*.mixer.conv1d.bias        transformer.h.*.attn.conv1d.bias
        layers.*.mixer.x_proj.weight      transformer.h.*.attn.x_proj.weight
        layers.*.mixer.dt_proj.weight     transformer.h.*.attn.dt_proj.weight
        layers.*.mixer.dt_proj.bias       transformer.h.*.attn.dt_proj.bias
        layers.*.mixer.A_log              transformer.h.*.attn.A_log
        layers.*.mixer.D                  transformer.h.*.attn.D
        layers.*.mixer.out_proj.weight    transformer.h.*.attn.out_proj.weight
        layers.*.mixer.q_proj.weight      transformer.h.*.attn.attn.weight[0/{attn.n_kv_heads}]
        layers.*.mixer.k_proj.weight      transformer.h.*.attn.attn.weight[1/{attn.n_kv_heads}]
        layers.*.mixer.v_proj.weight      transformer.h.*.attn.attn.weight[2/{attn.n_kv_heads}]
        layers.*.mixer.q_proj.bias        transformer.h.*.attn.attn.bias[0/{attn.n_kv_heads}]
        layers.*.mixer.k_proj.bias        transformer.h.*.attn.attn.bias[1/{attn.n_kv_heads}]
        layers.*.mixer.v_proj.bias        transformer.h.*.attn.attn.bias[2/{attn.n_kv_heads}]
        layers.*.mixer.o_proj.weight      transformer.h.*.attn.proj.weight
        layers.*.mixer.o_proj.bias        transformer.h.*.attn.proj.bias
        layers.*.mlp_norm.weight          transformer.h.*.norm_2.weight
        layers.*.mlp.gate_proj.weight     transformer.h.*.mlp.swiglu.w1.weight
        layers.*.mlp.gate_proj.bias       transformer.h.*.mlp.swiglu.w1.bias
        layers.*.mlp.up_proj.weight       transformer.h.*.mlp.swiglu.w2.weight
        layers.*.mlp.up_proj.bias         transformer.h.*.mlp.swiglu.w2.bias
        layers.*.mlp.down_proj.weight     transformer.h.*.mlp.swiglu.w3.weight
        layers.*.mlp.down_proj.bias       transformer.h.*.mlp.swiglu.w3.bias
        norm.weight                       transformer.ln_f.weight
        lm_head.weight                    lm_head.weight
    """,
    keys="""
        padded_vocab_size  vocab                                  int                          null  none
        vocab_size         vocab.size                             int                          50254
        padding_multiple   vocab.multiple                         int                          512
        block_size         context                                int                          4096
        n_layer            n_layers                               int                          16
        n_embd             d_model                                int                          4096
        n_head             attn.n_heads                           int                          32
        n_query_groups     attn.n_kv_heads                        int                          null  attn.n_heads
        local_window       attn.window                            int                          null  none
        nope               nope                                   bool                         false
        rotary_percentage  rotary.share                           float                        0.25
        bias               attn.bias, attn.out_bias, swiglu.bias  bool                         true
        mb_per_layer       mamba.every                            int                          1
        intermediate_size  swiglu.d_ff                            int                          1
        norm_eps           norm.eps                               float                        1e-5
        mamba_init         tied                                   bool                         false
        parallel_residual  parallel                               bool                         true
        _norm_class        norm_class                             among RMSNorm, FusedRMSNorm  "LayerNorm"
        _mlp_class         mlp_class                              among LLaMAMLP               "GptNeoxMLP"
    """,
    always="""
        norm               "rms"
        residual.fp32      true
        mamba.offset       0
        mamba.d_state      16
        mamba.d_conv       4
        mamba.expand       2
        mamba.conv_bias    true
        mamba.bias         false
    """,
    follows="""
        mamba.dt_rank    ceil(d_model / 16)
        attn.d_head      d_model // attn.n_heads
    """,
    only="""
        mlp                      true       read    layers without a channel mixer are not supported
        full_per_layer           1000000    read    layers that see everything between those with a window
        mamba                    false      read    a stack of Mamba alone is another program's
        sc_attn                  false      read    convolutions in attention are not supported
        attn_layer_pos           null       read    attention at listed layers is not supported
        use_mega                 false      read    gated attention is not supported
        abl_mamba                false      read    channel mixers in the place of Mamba are not supported
        mamba_swa_mlp            false      read    three sublayers in a layer are not supported
        shared_attention_norm    false      read    one norm for both sublayers is not supported
        condense_ratio           1          read    condensed positions are not supported
    """,
    inert="""
        org                 where the configuration came from
        name                where the configuration came from
        rms_norm            of a stack of Mamba alone
        residual_in_fp32    of a stack of Mamba alone
        fused_add_norm      which implementation computes the same norm
    """,
    settle=_settle,
    derive=_derive,
    limit=_limit,
    write=_written,
    rephrased=("padded_vocab_size",),
    config_file="lit_config.json",
    weights="lit_model.pth",
)
