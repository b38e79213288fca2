"""Mamba-2 (arXiv:2405.21060) as transformers stores it: one mixer a layer, no channel mixer.

transformers works out the inner width from `expand` and insists that it is num_heads * head_dim, so only an inner width
that is a multiple of d_model has a config.json.
"""

from __future__ import annotations

from archc.hub.family import family
from archc.hub.rules import Fact, Facts, whole


def with_expand(facts: Facts) -> Facts:
    """`expand` of a spec that gives heads alone."""
    if "mamba2.n_heads" not in facts:
        return facts
    inner, d_model = whole(facts, "mamba2.n_heads") * whole(facts, "mamba2.d_head"), whole(facts, "d_model")
    if facts.get("mamba2.expand") is not None or inner % d_model:
        return facts
    said: dict[str, Fact] = {**facts, "mamba2.expand": inner // d_model}
    return said


def inner_problem(facts: Facts, *, expand: str, heads: str, groups: str) -> str | None:
    """Why transformers refuses or misreads an inner width; the keys are the family's."""
    n_heads, inner = whole(facts, "mamba2.n_heads"), whole(facts, "mamba2.n_heads") * whole(facts, "mamba2.d_head")
    d_model, factor = whole(facts, "d_model"), facts.get("mamba2.expand")
    if not isinstance(factor, int):
        return f"{expand}: an inner width of {inner} is no multiple of {d_model}, and transformers wants one"
    if factor * d_model != inner:
        return f"{expand}: {factor} * {d_model} is not {heads} = {inner}"
    if n_heads % whole(facts, "mamba2.n_groups"):
        return f"{groups}: {facts['mamba2.n_groups']} does not divide {n_heads} heads"
    return None


def _limit(facts: Facts) -> str | None:
    return inner_problem(facts, expand="expand", heads="num_heads * head_dim", groups="n_groups")


MAMBA2 = family(
    name="mamba2",
    title="Mamba-2",
    source="arXiv:2405.21060",
    architecture="Mamba2ForCausalLM",
    layers=(("mamba2",),),
    tensors="""
        embed.weight                      backbone.embeddings.weight
        layers.*.mixer_norm.weight        backbone.layers.*.norm.weight
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
        norm.weight                       backbone.norm_f.weight
        lm_head.weight                    lm_head.weight
    """,
    keys="""
        vocab_size             vocab                        int    32768
        hidden_size            d_model                      int    4096
        num_hidden_layers      n_layers                     int    64
        tie_word_embeddings    tied                         bool   false
        residual_in_fp32       residual.fp32                bool   true
        layer_norm_epsilon     norm.eps, mamba2.norm.eps    float  1e-5
        num_heads              mamba2.n_heads               int    128
        head_dim               mamba2.d_head                int    64
        state_size             mamba2.d_state               int    128
        n_groups               mamba2.n_groups              int    8
        conv_kernel            mamba2.d_conv                int    4
        expand                 mamba2.expand                int    2
        use_conv_bias          mamba2.conv_bias             bool   true
        use_bias               mamba2.bias                  bool   false
        chunk_size             mamba2.chunk                 int    256
    """,
    always="""
        norm           "rms"
        mamba2.norm    "rms"
    """,
    only="""
        hidden_act         "silu"             written    the gate and the convolution of a generated Mamba-2 use SiLU
        time_step_limit    [0.0, Infinity]    read       transformers limits dt in whole sequences alone
        rms_norm           true               read       transformers always uses RMSNorm
        norm_before_gate   false              read       transformers ignores what this key asks for
        ssm_cfg            {}                 read       transformers ignores what this key asks for
    """,
    inert="""
        time_step_rank              transformers does not use it: Mamba-2 has no rank of dt
        time_step_min               initialisation
        time_step_max               initialisation
        time_step_floor             initialisation
        rescale_prenorm_residual    initialisation
        fused_add_norm              which implementation computes the same norm
        use_mamba_kernels           which implementation computes the same recurrence
        pad_vocab_size_multiple     vocab_size is the padded size already
        max_position_embeddings     the model has no maximum; transformers does not read it
        pad_token_id                what tokenizers pad with
    """,
    derive=with_expand,
    limit=_limit,
)
