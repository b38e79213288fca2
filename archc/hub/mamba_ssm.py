"""The checkpoints of state-spaces/mamba under their own names: Mamba (arXiv:2312.00752), Mamba-2 and mamba2attn
(arXiv:2405.21060).

Their config.json has no model_type: `ssm_cfg` and `attn_cfg` hold the arguments of the mixers, `attn_layer_idx` says
where attention is. Defaults are those of the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from archc.hub.family import Family, family
from archc.hub.mamba import MAMBA
from archc.hub.mamba2 import MAMBA2, with_expand
from archc.hub.pattern import pattern
from archc.hub.read import UnsupportedConfig
from archc.hub.rules import Fact, Facts, whole

_PLACES, _LAYERS = "attn_layer_idx", "layers"

_ATTENTION = """
    layers.*.mixer.qkv_proj.weight    backbone.layers.*.mixer.in_proj.weight
    layers.*.mixer.qkv_proj.bias      backbone.layers.*.mixer.in_proj.bias
    layers.*.mixer.qkv_conv.weight    backbone.layers.*.mixer.conv1d.weight
    layers.*.mixer.qkv_conv.bias      backbone.layers.*.mixer.conv1d.bias
    layers.*.mixer.q_proj.weight      backbone.layers.*.mixer.in_proj.weight[0]
    layers.*.mixer.k_proj.weight      backbone.layers.*.mixer.in_proj.weight[1]
    layers.*.mixer.v_proj.weight      backbone.layers.*.mixer.in_proj.weight[2]
    layers.*.mixer.q_proj.bias        backbone.layers.*.mixer.in_proj.bias[0]
    layers.*.mixer.k_proj.bias        backbone.layers.*.mixer.in_proj.bias[1]
    layers.*.mixer.v_proj.bias        backbone.layers.*.mixer.in_proj.bias[2]
    layers.*.mixer.o_proj.weight      backbone.layers.*.mixer.out_proj.weight
    layers.*.mixer.o_proj.bias        backbone.layers.*.mixer.out_proj.bias
"""
_KEYS = """
    d_model                     d_model            int      2560
    n_layer                     n_layers           int      64
    vocab_size                  vocab              int      50277
    pad_vocab_size_multiple     vocab.multiple     int      8
    tie_embeddings              tied               bool     true
    residual_in_fp32            residual.fp32      bool     true
    attn_cfg.num_heads          attn.n_heads       int      1
    attn_cfg.num_heads_kv       attn.n_kv_heads    int      null    attn.n_heads
    attn_cfg.head_dim           attn.d_head        int      null    d_model // attn.n_heads
    attn_cfg.qkv_proj_bias      attn.bias          bool     true
    attn_cfg.out_proj_bias      attn.out_bias      bool     true
    attn_cfg.softmax_scale      attn.scale         float    null    none
    attn_cfg.causal             causal             bool     false
    attn_cfg.d_conv             attn.d_conv        index    0
    attn_cfg.rotary_emb_dim     attn.rope.dims     index    0
    attn_cfg.rotary_emb_base    attn.rope.theta    float    10000.0
"""
_ALWAYS = """
    norm                  "rms"
    norm.eps              1e-5
    attn.qkv_conv.bias    true
    attn.qkv_conv.act     null
"""
_ONLY = """
    d_intermediate                     0        read    channel mixers beside the mixers are not supported
    rms_norm                           true     read    LayerNorm is not supported
    attn_cfg.mlp_dim                   0        read    a channel mixer inside of attention is not supported
    attn_cfg.rotary_emb_interleaved    false    read    rotary positions turn halves here
"""
_INERT = """
    fused_add_norm              which implementation computes the same norm
    ssm_cfg.dt_min              initialisation
    ssm_cfg.dt_max              initialisation
    ssm_cfg.dt_init             initialisation
    ssm_cfg.dt_scale            initialisation
    ssm_cfg.dt_init_floor       initialisation
    ssm_cfg.conv_init           initialisation
    ssm_cfg.A_init_range        initialisation
    ssm_cfg.use_fast_path       which implementation computes the same scan
    ssm_cfg.use_mem_eff_path    which implementation computes the same scan
"""


def config_of(config: Mapping[str, object]) -> tuple[Family, dict[str, object]]:
    """The family of a config.json of theirs, and its keys with the kind of every layer. Raises UnsupportedConfig."""
    ssm_cfg, places, n_layer = config.get("ssm_cfg") or {}, config.get(_PLACES) or [], config.get("n_layer", 64)
    if not isinstance(ssm_cfg, dict):
        raise UnsupportedConfig(("ssm_cfg", f"{ssm_cfg!r:.60} is no dictionary"))
    layer = ssm_cfg.get("layer", "Mamba1")
    if not isinstance(layer, str) or layer not in FAMILIES:
        raise UnsupportedConfig(("ssm_cfg.layer", f"{layer!r} is none of {', '.join(FAMILIES)}"))
    if not isinstance(n_layer, int) or not 0 < n_layer <= 100_000:
        raise UnsupportedConfig(("n_layer", f"{n_layer!r:.60} is no number of layers"))
    if not isinstance(places, list) or not all(isinstance(place, int) and 0 <= place < n_layer for place in places):
        raise UnsupportedConfig((_PLACES, f"{places!r:.60} is no list of layers below {n_layer}"))
    attn_cfg = config.get("attn_cfg")
    if places and not (isinstance(attn_cfg, dict) and attn_cfg.get("num_heads")):
        raise UnsupportedConfig(("attn_cfg", f"there is attention at {places!r:.60}, and num_heads is missing"))
    said = {key: value for key, value in config.items() if key != _PLACES}
    said["ssm_cfg"] = {key: value for key, value in ssm_cfg.items() if key != "layer"}
    said[_LAYERS] = ["attention" if i in places else "ssm" for i in range(n_layer)]
    return FAMILIES[layer], said


def _written(layer: str, config: Mapping[str, object]) -> dict[str, object]:
    """The config.json of a family, with the places of attention in the place of all layers."""
    said = dict(config)
    layers, ssm_cfg = said.pop(_LAYERS), said.get("ssm_cfg", {})
    assert isinstance(layers, list)
    assert isinstance(ssm_cfg, dict)
    places = [i for i, word in enumerate(layers) if word == "attention"]
    return {**said, "ssm_cfg": {"layer": layer, **ssm_cfg}, _PLACES: places}


def _settle(facts: Facts) -> Facts:
    """Rotary positions and a convolution are there if they have a width."""
    said: dict[str, Fact] = dict(facts)
    multiple = whole(facts, "vocab.multiple")
    said["vocab"] = -(-whole(facts, "vocab") // multiple) * multiple
    dims, d_conv = said["attn.rope.dims"], said["attn.d_conv"]
    said["attn.rope"] = "rope" if dims else None
    said["attn.rope.dims"] = None if dims == said["attn.d_head"] else dims
    said["attn.qkv_conv"] = "conv" if d_conv else None
    if "mamba2.d_head" in said:
        said["mamba2.n_heads"] = whole(said, "mamba2.expand") * whole(said, "d_model") // whole(said, "mamba2.d_head")
    return said


def _derive(facts: Facts) -> Facts:
    """Widths of zero for what is not there."""
    said: dict[str, Fact] = {**facts, "vocab.multiple": 1}
    if "mamba2.n_heads" in said:
        said |= with_expand(facts)
        if said.get("mamba2.expand") is not None:  # says it, as far as d_head goes
            del said["mamba2.n_heads"]
    if "attn.n_heads" in said:
        rope, conv, dims = said.pop("attn.rope"), said.pop("attn.qkv_conv"), said.get("attn.rope.dims")
        said["causal"] = True
        said["attn.rope.dims"] = (said["attn.d_head"] if dims is None else dims) if rope else 0
        said["attn.d_conv"] = said["attn.d_conv"] if conv else 0
    return said


def _limit(facts: Facts) -> str | None:
    if "mamba2.d_head" in facts:
        d_head, n_groups, expand = (
            whole(facts, "mamba2.d_head"),
            whole(facts, "mamba2.n_groups"),
            facts["mamba2.expand"],
        )
        if not isinstance(expand, int):
            return "ssm_cfg.expand: the inner width is no multiple of d_model"
        inner = expand * whole(facts, "d_model")
        if inner % d_head:
            return f"ssm_cfg.headdim: {d_head} does not divide an inner width of {inner}"
        if inner // d_head % n_groups:
            return f"ssm_cfg.ngroups: {n_groups} does not divide {inner // d_head} heads"
    if "attn.n_heads" in facts:
        dims, d_head = facts.get("attn.rope.dims"), whole(facts, "attn.d_head")
        if not facts["causal"]:
            return "attn_cfg.causal: attention that sees what comes is not supported: say true"
        if isinstance(dims, int) and (dims > d_head or dims % 2):
            return f"attn_cfg.rotary_emb_dim: {dims} of {d_head} dimensions, and rotary positions turn pairs of them"
    return None


def _named(
    of: Family, layer: str, mixer: str, keys: str, *, always: str = "", only: str = "", inert: str = ""
) -> Family:
    """The family of a mixer, its tensors named as transformers does but for the embedding."""
    made = family(
        name="mamba_ssm" if mixer == "mamba" else f"{mixer}_ssm",
        title=f"native {of.title}",
        source=of.source,
        architecture="",
        pattern=pattern(_LAYERS, f"ssm  {mixer}\nattention  attn"),
        tensors=_ATTENTION,
        keys=_KEYS + keys,
        always=_ALWAYS + always,
        only=_ONLY + only,
        inert=_INERT,
        settle=_settle,
        derive=_derive,
        limit=_limit,
        write=partial(_written, layer),
        rephrased=("pad_vocab_size_multiple", "vocab_size"),
        weights="pytorch_model.bin",
    )
    rows = tuple(replace(row, theirs=row.theirs.replace(".embeddings.", ".embedding.")) for row in of.tensors)
    return replace(made, tensors=(*rows, *made.tensors))


FAMILIES = {
    "Mamba1": _named(
        MAMBA,
        "Mamba1",
        "mamba",
        """
        ssm_cfg.d_state      mamba.d_state      int     16
        ssm_cfg.d_conv       mamba.d_conv       int     4
        ssm_cfg.expand       mamba.expand       int     2
        ssm_cfg.dt_rank      mamba.dt_rank      int     "auto"    ceil(d_model / 16)
        ssm_cfg.conv_bias    mamba.conv_bias    bool    true
        ssm_cfg.bias         mamba.bias         bool    false
        """,
    ),
    "Mamba2": _named(
        MAMBA2,
        "Mamba2",
        "mamba2",
        """
        ssm_cfg.d_state             mamba2.d_state             int     128
        ssm_cfg.d_conv              mamba2.d_conv              int     4
        ssm_cfg.expand              mamba2.expand              int     2
        ssm_cfg.headdim             mamba2.d_head              int     64
        ssm_cfg.ngroups             mamba2.n_groups            int     1
        ssm_cfg.chunk_size          mamba2.chunk               int     256
        ssm_cfg.conv_bias           mamba2.conv_bias           bool    true
        ssm_cfg.bias                mamba2.bias                bool    false
        ssm_cfg.norm_before_gate    mamba2.norm_before_gate    bool    false
        """,
        always="""
        mamba2.norm        "rms"
        mamba2.norm.eps    1e-5
        """,
        only="""
        ssm_cfg.d_ssm         null               read    a gated channel mixer inside of Mamba-2 is not supported
        ssm_cfg.rmsnorm       true               read    a gate without a norm is not supported
        ssm_cfg.D_has_hdim    false              read    a D for each channel is not supported
        ssm_cfg.dt_limit      [0.0, Infinity]    read    limits of dt are not supported
        """,
    ),
}
