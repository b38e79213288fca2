"""The toy's checkpoint families."""

from .hf_family import Family

ROWS = (
    ("embed.weight", "model.embed_tokens.weight"),
    ("lm_head.weight", "lm_head.weight"),
    ("layers.*.in_proj.weight", "model.layers.*.mixer.in_proj.weight"),
    ("layers.*.decay", "model.layers.*.mixer.decay"),
    ("layers.*.router.weight", "model.layers.*.moe.router.weight"),
    ("layers.*.experts.up_proj[*]", "model.layers.*.moe.experts.*.up_proj.weight"),
    ("layers.*.experts.down_proj[*]", "model.layers.*.moe.experts.*.down_proj.weight"),
)
CONFIG: dict[str, object] = {
    "model_type": "toyformer",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_experts": 3,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
FAMILIES = (
    Family(name="toyformer", config=CONFIG, rows=ROWS, rephrased=("max_position_embeddings",)),
    Family(
        name="toyling",
        config={**CONFIG, "model_type": "toyling", "sliding_window": None},
        rows=ROWS,
        rephrased=("max_position_embeddings",),
    ),
    Family(
        name="native",
        config={"width": 16, "cfg": {"experts": 3}},
        rows=tuple((ours, theirs.replace("model.", "toy.")) for ours, theirs in ROWS),
        config_file="toy.json",
        weights="toy.bin",
    ),
)
