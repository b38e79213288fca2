"""Keys that any config.json of transformers may hold: those that change nothing, and those that would."""

from __future__ import annotations

import json

from archc.hub.family import Only
from archc.hub.table import pairs, rows

# Their key, why it does not change the function.
INERT = dict(
    pairs("""
        _attn_implementation                   which implementation computes the same attention
        _attn_implementation_autoset           which implementation computes the same attention
        _commit_hash                           where the file came from
        _experts_implementation                which implementation computes the same experts
        _name_or_path                          where the file came from
        architectures                          checked by itself: the class whose tensors the file names
        attention_dropout                      training only
        attn_implementation                    which implementation computes the same attention
        auto_map                               where code for older versions lies; model_type decides here
        bos_token_id                           tokens of the vocabulary
        chunk_size_feed_forward                how a product is split
        dtype                                  the type in which the weights are stored
        eos_token_id                           tokens of the vocabulary
        experts_implementation                 which implementation computes the same experts
        finetuning_task                        a label
        id2label                               classification heads, which no family here has
        initializer_range                      initialisation
        label2id                               classification heads, which no family here has
        model_type                             chose the family
        name_or_path                           where the file came from
        num_labels                             classification heads, which no family here has
        output_attentions                      what is returned beside the logits
        output_hidden_states                   what is returned beside the logits
        problem_type                           classification heads, which no family here has
        return_dict                            in which Python type results come
        sep_token_id                           tokens of the vocabulary
        tokenizer_class                        the tokenizer
        torch_dtype                            the type in which the weights are stored
        torchscript                            how the model is traced
        transformers_version                   who wrote the file
        unsloth_version                        who wrote the file
        use_bfloat16                           the type in which the weights are stored
        use_cache                              whether generation keeps its state
    """)
)

# Their key, the one value that is supported, why.
ONLY = tuple(
    Only(name, json.loads(value), False, why)
    for name, value, why in rows(
        """
        add_cross_attention    false    attention over another model's states is not supported
        is_decoder             false    transformers' causal models do not set it
        is_encoder_decoder     false    only decoders are supported
        pruned_heads           {}       pruned heads are not supported
        quantization_config    null     the weights are stored quantised
        """,
        3,
    )
)
