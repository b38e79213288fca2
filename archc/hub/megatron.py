"""Megatron-LM's hybrid models, as arguments of its command line (arXiv:2406.07887).

`--hybrid-layer-pattern M-M*-` says every layer by a letter. What else is not said has Megatron's own default.
"""

from __future__ import annotations

from archc.hub.family import family
from archc.hub.pattern import pattern
from archc.hub.rules import Fact, Facts, whole

PATTERN = "hybrid-layer-pattern"

# Arguments that change nothing of what a trained model computes: those of NVIDIA's scripts.
_TRAINING = """
    sequence-parallel pipeline-model-parallel-size context-parallel-size use-distributed-optimizer
    overlap-param-gather overlap-grad-reduce init-method-std train-samples train-iters lr-warmup-samples
    lr-warmup-iters lr-decay-samples lr-decay-iters lr lr-decay-style min-lr weight-decay clip-grad adam-beta1
    adam-beta2 attention-dropout hidden-dropout micro-batch-size global-batch-size rampup-batch-size seq-length
    seed bf16 fp16 save load save-interval eval-interval eval-iters log-interval data-path data-cache-path split
    tokenizer-type tokenizer-model tensorboard-dir distributed-backend distributed-timeout-minutes
    use-mcore-models use-flash-attn attention-backend no-create-attention-mask-in-dataloader transformer-impl
"""


def _settle(facts: Facts) -> Facts:
    """What flags and sizes that Megatron works out mean."""
    said: dict[str, Fact] = {**facts, "mamba2.chunk": 128}
    kind, d_model = str(said["mlp.kind"]), whole(facts, "d_model")
    if said["vocab"] is None:
        multiple = whole(facts, "vocab.multiple") * whole(facts, "vocab.ranks")
        said["vocab"] = -(-whole(facts, "vocab.size") // multiple) * multiple
    d_ff = int(4 * d_model * 2 / 3 / 64) * 64 if kind == "swiglu" else 4 * d_model
    said[f"{kind}.d_ff"] = d_ff if said["d_ff"] is None else said["d_ff"]
    if said["mamba2.n_heads"] is None:
        said["mamba2.n_heads"], rest = divmod(2 * d_model, whole(facts, "mamba2.d_head"))
        said["uneven"] = rest != 0
    if not said["grouped"]:
        said["attn.n_kv_heads"] = said["attn.n_heads"]
    said["attn.bias"] = not said["unbiased"] or said["qkv_biased"]
    said["attn.out_bias"] = said[f"{kind}.bias"] = not said["unbiased"]
    said["tied"] = not said["untied"]
    if said["positions"] == "rope":
        d_head, share = whole(facts, "attn.d_head"), said["rotary_share"]
        assert isinstance(share, float)
        dims = int(d_head * share)
        said |= {"attn.rope": "rope", "attn.rope.theta": said["rotary_base"]}
        said["attn.rope.dims"] = None if dims == d_head else dims
    else:
        said["attn.rope"] = None
    return said


def _derive(facts: Facts) -> Facts:
    """The flags that a graph's facts come from, as far as there are any."""
    said: dict[str, Fact] = dict(facts)
    layers = said["layers"]
    assert isinstance(layers, tuple)
    kind = next((kind for kind in ("swiglu", "relu2", "gelu") if kind in layers), "gelu")
    said |= {"mlp.kind": kind, "untied": not said.pop("tied"), "normalization": "RMSNorm", "positions": "none"}
    said["d_ff"] = said.pop(f"{kind}.d_ff", None)
    said.pop("mamba2.chunk", None)  # no argument, nor part of what is computed
    biases = {said.get("attn.out_bias"), said.get(f"{kind}.bias")} - {None}
    if len(biases) < 2:
        biased = biases == {True}
        said["unbiased"] = not biased
        said["qkv_biased"] = bool(said.pop("attn.bias", None)) and not biased
        for path in ("attn.out_bias", f"{kind}.bias"):
            said.pop(path, None)
    if "attn.n_heads" in said:
        said["grouped"] = said["attn.n_kv_heads"] != said["attn.n_heads"]
        if not said["grouped"]:
            del said["attn.n_kv_heads"]
    if said.get("attn.rope") is not None:
        dims, d_head = said.pop("attn.rope.dims", None), said["attn.d_head"]
        assert isinstance(d_head, int)
        assert dims is None or isinstance(dims, int)
        said |= {"positions": "rope", "rotary_base": said.pop("attn.rope.theta")}
        said["rotary_share"] = (dims or d_head) / d_head
    said.pop("attn.rope", None)
    return said


def _limit(facts: Facts) -> str | None:
    if facts["positions"] == "learned_absolute":
        return "position-embedding-type: Megatron learns positions unless told, and that is not supported: say none"
    if facts["normalization"] != "RMSNorm":
        return "normalization: Megatron has LayerNorm unless told, and that is not supported: say RMSNorm"
    if facts["positions"] == "rope" and "attn.d_head" in facts:
        d_head, share = whole(facts, "attn.d_head"), facts["rotary_share"]
        assert isinstance(share, float)
        if share > 1 or int(share * d_head) % 2 or not int(share * d_head):
            return f"rotary-percent: {share} of {d_head} dimensions are no pairs, which rotary positions turn"
    if facts.get("uneven") and "mamba2.d_head" in facts:
        return f"mamba-head-dim: {facts['mamba2.d_head']} does not divide an inner width of 2 * {facts['d_model']}"
    n_heads, n_groups = facts.get("mamba2.n_heads"), facts.get("mamba2.n_groups")
    if isinstance(n_heads, int) and isinstance(n_groups, int) and n_heads % n_groups:
        return f"mamba-num-groups: {n_groups} does not divide {n_heads} heads"
    return None


MEGATRON = family(
    name="megatron",
    title="Megatron hybrid",
    source="arXiv:2406.07887",
    architecture="",
    pattern=pattern(
        PATTERN,
        """
            M    mamba2
            *    attn
            -    {mlp.kind}
        """,
    ),
    tensors="",
    keys="""
        num-layers                           n_layers         int                        null  none
        hidden-size                          d_model          int                        null  none
        padded-vocab-size                    vocab            int                        null  none
        vocab-size                           vocab.size       int                        null  none
        make-vocab-size-divisible-by         vocab.multiple   int                        128
        tensor-model-parallel-size           vocab.ranks      int                        1
        max-position-embeddings              context          int                        null  none
        untie-embeddings-and-output-weights  untied           bool                       false
        normalization                        normalization    among RMSNorm              "LayerNorm"
        norm-epsilon                         norm.eps         float                      1e-5
        fp32-residual-connection             residual.fp32    bool                       false
        mamba-num-heads                      mamba2.n_heads   int                        null  none
        mamba-head-dim                       mamba2.d_head    int                        64
        mamba-state-dim                      mamba2.d_state   int                        128
        mamba-num-groups                     mamba2.n_groups  int                        8
        num-attention-heads                  attn.n_heads     int                        1
        kv-channels                          attn.d_head      int                        null  d_model // attn.n_heads
        group-query-attention                grouped          bool                       false
        num-query-groups                     attn.n_kv_heads  int                        1
        position-embedding-type              positions        among none, rope           "learned_absolute"
        rotary-base                          rotary_base      float                      10000.0
        rotary-percent                       rotary_share     float                      1.0
        activation                           mlp.kind         among gelu, relu2, swiglu  "gelu"
        ffn-hidden-size                      d_ff             int                        null  none
        disable-bias-linear                  unbiased         bool                       false
        add-qkv-bias                         qkv_biased       bool                       false
    """,
    always="""
        norm                "rms"
        mamba2.norm         "rms"
        mamba2.norm.eps     1e-5
        mamba2.d_conv       4
        mamba2.conv_bias    true
        mamba2.bias         false
    """,
    inert="\n".join(f"{name}  how it is trained, and by which implementation" for name in _TRAINING.split()),
    settle=_settle,
    derive=_derive,
    limit=_limit,
    config_file="command line",
)
