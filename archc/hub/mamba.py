"""Mamba (arXiv:2312.00752) as transformers stores it: one mixer a layer, no channel mixer."""

from __future__ import annotations

from archc.hub.family import family

MAMBA = family(
    name="mamba",
    title="Mamba",
    source="arXiv:2312.00752",
    architecture="MambaForCausalLM",
    layers=(("mamba",),),
    tensors="""
        embed.weight                      backbone.embeddings.weight
        layers.*.mixer_norm.weight        backbone.layers.*.norm.weight
        layers.*.mixer.in_proj.weight     backbone.layers.*.mixer.in_proj.weight
        layers.*.mixer.in_proj.bias       backbone.layers.*.mixer.in_proj.bias
        layers.*.mixer.conv1d.weight      backbone.layers.*.mixer.conv1d.weight
        layers.*.mixer.conv1d.bias        backbone.layers.*.mixer.conv1d.bias
        layers.*.mixer.x_proj.weight      backbone.layers.*.mixer.x_proj.weight
        layers.*.mixer.dt_proj.weight     backbone.layers.*.mixer.dt_proj.weight
        layers.*.mixer.dt_proj.bias       backbone.layers.*.mixer.dt_proj.bias
        layers.*.mixer.A_log              backbone.layers.*.mixer.A_log
        layers.*.mixer.D                  backbone.layers.*.mixer.D
        layers.*.mixer.out_proj.weight    backbone.layers.*.mixer.out_proj.weight
        layers.*.mixer.out_proj.bias      backbone.layers.*.mixer.out_proj.bias
        norm.weight                       backbone.norm_f.weight
        lm_head.weight                    lm_head.weight
    """,
    keys="""
        vocab_size             vocab              int    50280
        hidden_size            d_model            int    768
        num_hidden_layers      n_layers           int    32
        tie_word_embeddings    tied               bool   true
        residual_in_fp32       residual.fp32      bool   true
        layer_norm_epsilon     norm.eps           float  1e-5
        state_size             mamba.d_state      int    16
        conv_kernel            mamba.d_conv       int    4
        expand                 mamba.expand       int    2
        time_step_rank         mamba.dt_rank      int    "auto"    ceil(d_model / 16)
        use_conv_bias          mamba.conv_bias    bool   true
        use_bias               mamba.bias         bool   false
        intermediate_size      mamba.d_inner      int    null      only mamba.expand * d_model
    """,
    always="""
        norm    "rms"
    """,
    only="""
        hidden_act    "silu"    written    the gate and the convolution of a generated Mamba use SiLU
        rms_norm      true      read       transformers always uses RMSNorm
        ssm_cfg       {}        read       transformers ignores what this key asks for
    """,
    inert="""
        use_mambapy                 which implementation computes the same scan
        use_associative_scan        which implementation computes the same scan
        fused_add_norm              which implementation computes the same norm
        time_step_scale             initialisation
        time_step_min               initialisation
        time_step_max               initialisation
        time_step_floor             initialisation
        time_step_init_scheme       initialisation
        rescale_prenorm_residual    initialisation
        d_model                     hidden_size in the words of mamba_ssm; transformers does not read it
        d_inner                     intermediate_size in the words of mamba_ssm; transformers does not read it
        n_layer                     num_hidden_layers in the words of mamba_ssm; transformers does not read it
        pad_vocab_size_multiple     vocab_size is the padded size already
        max_position_embeddings     the model has no maximum; transformers does not read it
        pad_token_id                what tokenizers pad with
    """,
)
