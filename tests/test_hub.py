"""Checkpoint families: published configurations in and out, what matches by structure, what is refused by name."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archc import compiler, hub
from archc.diagnostics import DiagnosticError, Source
from archc.elaborate.elaborate import elaborate
from archc.grammar.format import format_spec
from archc.grammar.parse import parse
from archc.hub.match import periodic
from archc.hub.programs import FORMATS, configuration, spec_of
from archc.hub.repeats import Run, rolled, text
from archc.ir.graph import Graph, Use, counts, unrolled
from archc.ir.text import meaning
from archc.passes.pipeline import lower

from . import test_counts
from .hub.emitted import families

ROOT = Path(__file__).parents[1]
CONFIGS = Path(__file__).parent / "hub"

# Configurations with the keys of the published files.
NAMES = sorted(path.stem for path in CONFIGS.glob("*.json"))


def graph_of(spec: str) -> Graph:
    return elaborate(parse(Source("spec", spec)))[0]


def config_of(name: str) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((CONFIGS / f"{name}.json").read_text())
    return loaded


def test_every_family_has_a_published_configuration() -> None:
    assert {config_of(name)["model_type"] for name in NAMES} == {family.name for family in hub.FAMILIES}


@pytest.mark.parametrize("name", NAMES)
def test_published_configuration(name: str) -> None:
    """A short spec in the printer's own form, of exactly the published sizes; and back."""
    spec = hub.import_config((CONFIGS / f"{name}.json").read_text(), name)
    assert len(spec.splitlines()) <= 24
    assert format_spec(parse(Source(name, spec))) == spec
    model = compiler.load(Source(name, spec))
    test_counts.compare(compiler.analyse(model, test_counts.K256), name)
    config = config_of(name)
    ours = hub.export_config(model.graph, str(config["model_type"]))
    assert says(ours, config)
    assert hub.spec_text(ours, name) == spec


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_in_the_tree_says_the_same(name: str) -> None:
    by_hand = graph_of((ROOT / "specs" / f"{name}.arch").read_text())
    config = config_of(name)
    assert says(hub.export_config(by_hand, str(config["model_type"])), config)


def layer_by_layer(graph: Graph) -> list[str]:
    """What every layer computes, however the stack is rolled and a shared module is called."""
    texts = {}
    for layer in counts(graph.stack):
        text = meaning(replace(graph, stack=(Use(layer),)))
        shares = {scope.shared.name for scope in layer.scopes if scope.shared is not None}
        for share in shares:
            text = re.sub(rf"\b{share}(?=\b|_)", "share", text)
        texts[layer] = text
    return [texts[layer] for layer in unrolled(graph.stack)]


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*.arch")), ids=lambda path: path.stem)
def test_import_undoes_export(path: Path) -> None:
    """A spec that has a family is the same model again, whoever's words it went through."""
    graph = graph_of(path.read_text())
    found = hub.match(graph)
    for match in (found, *found.others) if found else ():
        spec = spec_of(Source(match.family.config_file, json.dumps(match.config)), graph.settings.name)
        assert layer_by_layer(graph_of(spec)) == layer_by_layer(graph), match.family.name


ATTENTION = "attn gqa(3,1) d_head=10"
LAYERS = (
    "mamba2(n_heads=15, d_head=4)", "mamba2(n_heads=16, d_head=4, n_groups=8, chunk=128)", "mamba",
    "mamba2(n_heads=15, d_head=4, norm_before_gate)", "mamba(conv_bias=false)", "gelu(9)", "swiglu(8)",
    "relu2(8, bias)", f"{ATTENTION} rope", f"{ATTENTION}", f"{ATTENTION} rope(dims=2) qkv_conv=conv(4)",
    f"{ATTENTION} scale=0.3", f"{ATTENTION} bias out_bias", f"{ATTENTION} window(4) rope", "mamba + swiglu(9)",
    f"{ATTENTION} rope window(3) + swiglu(9)", f"{ATTENTION} rope(dims=6, theta=3) + swiglu(9)",
)  # fmt: skip


def test_drawn_models_survive_every_program() -> None:
    """Whatever a program has words for is the same model when they are read again; and each program has some."""
    draw, written = random.Random(0), Counter[str]()
    for _ in range(100):
        layers = ", ".join(draw.choices(draw.sample(LAYERS, draw.choice([1, 1, 2, 3])), k=draw.choice([1, 2, 4, 7])))
        tied, wide = draw.choice(["", "tied; "]), draw.choice(["", "residual(dtype=fp32); "])
        graph = graph_of(f"vocab 64; d_model 30; norm rms; mlp none; {tied}{wide}block < {layers} >")
        for to in FORMATS:
            try:
                text = configuration(graph, to)
            except DiagnosticError:
                continue
            written[to] += 1
            again = graph_of(spec_of(Source(to, text)))
            both = [[re.sub(r"chunk=\d+,? ?", "", layer) for layer in layer_by_layer(g)] for g in (again, graph)]
            assert both[0] == both[1], (to, layers)
    assert set(written) == set(FORMATS)


def says(ours: dict[str, object], theirs: dict[str, object]) -> bool:
    """Whether every key of theirs that we write has the value that we write."""
    alike = dict(theirs)
    if "rope_theta" in alike:  # as files of transformers 4 have it
        alike["rope_parameters"] = {"rope_theta": alike["rope_theta"], "rope_type": "default"}
    if isinstance(layers := alike.get("layers_block_type"), list):  # an older word
        alike["layers_block_type"] = ["linear_attention" if word == "mamba" else word for word in layers]
    for key, rule in (("time_step_rank", "auto"), ("mamba_dt_rank", "auto"), ("head_dim", None)):
        if key in alike and alike[key] == rule:
            del alike[key]
    alike.pop("pad_token_id", None)  # of training
    return agree(ours, alike)


def agree(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether what both say is the same."""
    both = [(ours[key], value) for key, value in theirs.items() if key in ours]
    return all(agree(a, b) if isinstance(a, dict) and isinstance(b, dict) else a == b for a, b in both)


def test_a_jamba_is_three_lines() -> None:
    *_, mamba, attn, _, block = hub.spec_text(config_of("jamba_v0_1"), "Jamba-v0.1").splitlines()
    assert mamba == "let mamba = mamba(d_state=16, d_conv=4, expand=2, dt_rank=256, inner_norm=rms)"
    assert attn == "let attn  = attn(d_head=128, rope=none)"
    assert block == "block x4 < mamba x4, attn gqa(32,8), mamba x3 > moe every 2 top2/16"


@pytest.mark.parametrize(
    ("change", "block"),
    [
        ({"num_hidden_layers": 28},
         "block < < mamba x4, attn gqa(32,8), mamba x3 > x3, mamba x4 > moe every 2 top2/16"),
        ({"attn_layer_period": 1, "attn_layer_offset": 0}, "block x32 < attn gqa(32,8) > moe every 2 top2/16"),
        ({"attn_layer_period": 40, "attn_layer_offset": 35}, "block x32 < mamba > moe every 2 top2/16"),
        ({"expert_layer_period": 1, "expert_layer_offset": 0, "num_hidden_layers": 8, "attn_layer_offset": 0},
         "block < attn gqa(32,8), mamba x7 > moe top2/16"),
        ({"expert_layer_period": 3, "expert_layer_offset": 0, "attn_layer_period": 2, "attn_layer_offset": 1},
         "block x16 < mamba, attn gqa(32,8) > moe every 3 offset 0 top2/16"),
        ({"num_experts": 1}, "block x4 < mamba x4, attn gqa(32,8), mamba x3 >"),
        ({"expert_layer_period": 50, "expert_layer_offset": 49}, "block x4 < mamba x4, attn gqa(32,8), mamba x3 >"),
    ],
)  # fmt: skip
def test_jamba_patterns(change: dict[str, object], block: str) -> None:
    spec = hub.spec_text(config_of("jamba_v0_1") | change)
    assert spec.splitlines()[-1] == block
    again = hub.spec_text(hub.export_config(graph_of(spec)))
    assert again == spec


def test_a_stack_without_end_costs_nothing() -> None:
    spec = hub.spec_text(config_of("llama_2_7b") | {"num_hidden_layers": 10**9})
    assert spec.splitlines()[-1] == "block x1000000000 < attn gqa(32,32) >"
    assert hub.match(graph_of(spec)) is None, "no checkpoint has that many layers"


# --- what matches ----------------------------------------------------------------------------------

HEADER = "vocab 64; d_model 32; norm rms(eps=1e-6); mlp swiglu(48)\n"
MAMBA = "mamba(dt_rank=4, inner_norm=rms)"


@pytest.mark.parametrize(
    ("spec", "family"),
    [
        ("block x2 < attn gqa(4,2) rope >", "llama"),
        ("block x2 < attn mha(4) rope >", "llama"),
        ("block x2 < attn mqa(4) rope(theta=5e5) > bias out_bias", "llama"),
        ("block x2 < attn gqa(4,2) rope d_head=6 >", "llama"),
        ("block x2 < attn gqa(6,2) rope d_head=6 >", "mistral"),  # transformers' Llama wants heads that divide d_model
        ("block x2 < attn gqa(4,2) rope window(8) >", "mistral"),
        ("block x2 < attn gqa(4,2) rope > moe(router=softmax(renorm)) top2/4", "mixtral"),
        ("block x2 < attn gqa(4,2) rope window(8) > moe(router=softmax(renorm)) top2/4", "mixtral"),
        ("block x2 < attn gqa(4,2) rope > moe top2/4", None),  # Mixtral's weights sum to one
        ("block x4 < attn gqa(4,2) rope > moe(router=softmax(renorm)) every 2 top2/4", None),
        (f"block x2 < {MAMBA} x3, attn gqa(4,2) > moe every 2 top2/4", "jamba"),
        (f"block x2 < {MAMBA} x3, attn gqa(4,2) >", "jamba"),
        (f"block x2 < {MAMBA} >", "jamba"),
        ("block x2 < attn gqa(4,2) >", "jamba"),  # no positions
        (f"block x2 < {MAMBA} > mlp none", None),  # a Mamba has no inner norms
        (f"block x2 < {MAMBA} x3, attn gqa(4,2) > moe(router=softmax(renorm)) every 2 top2/4", None),
        (f"block x2 < {MAMBA} x3, attn gqa(4,2) rope > moe every 2 top2/4", None),
        (f"block < {MAMBA} x3, attn gqa(4,2), {MAMBA}, attn gqa(4,2) >", None),  # no period
        (f"block x2 < {MAMBA}, attn gqa(4,2) d_head=16 >", None),  # a Jamba has no head_dim
        ("block x2 < mamba(dt_rank=4, inner_norm=rms(eps=1e-5)) >", None),  # one eps for all
        (f"block x2 < {MAMBA} > moe(expert=swiglu(24)) every 2 top2/4", None),  # one width for all
        (f"block x2 < {MAMBA} > moe every 2 top1/1", None),  # there, one expert is no expert
        ("block x2 < mamba > mlp none", "mamba"),
        ("block x2 < mamba(dt_rank=3, conv_bias=false, bias) > mlp none", "mamba"),
        ("residual(dtype=fp32)\nblock x2 < mamba > mlp none", "mamba"),
        ("tied\nblock x2 < attn gqa(4,2) rope >", "llama"),
        ("residual(dtype=fp32)\nblock x2 < attn gqa(4,2) rope >", None),
        ("residual(branch=0.5)\nblock x2 < attn gqa(4,2) rope >", None),
        ("embed(scale=2)\nblock x2 < attn gqa(4,2) rope >", None),
        ("logits(scale=2)\nblock x2 < attn gqa(4,2) rope >", None),
        ("logits(cap=30)\nblock x2 < attn gqa(4,2) rope >", None),
        ("block < attn gqa(4,2) rope, attn gqa(4,2) rope window(8) >", None),
        ("block < attn gqa(4,2) rope, attn gqa(4,4) rope >", None),
        ("block x2 < attn gqa(4,2) rope(dims=4) >", "phi3"),
        ("block x2 < attn gqa(4,2) rope(dims=4) window(8) >", "phi3"),
        ("block x2 < attn gqa(4,2) rope(dims=4) d_head=6 >", None),  # a Phi-3 has no head_dim
        ("block x2 < attn gqa(4,2) rope qk_norm=rms >", None),
        ("block x2 < attn gqa(4,2) rope scale=2 >", None),
        ("block x2 < attn gqa(4,2) rope bias >", None),  # Llama has all biases of attention or none
        ("block x2 < attn gqa(4,2) rope + geglu(48) >", None),
        ("block x2 < attn gqa(4,2) rope > mlp none", None),
        ("block x2 < attn gqa(4,2) rope + mamba >", None),
    ],
)  # fmt: skip
def test_families_match_by_structure(spec: str, family: str | None) -> None:
    graph = graph_of(HEADER.replace("\n", ";") + "context 128\n" + spec)
    found = hub.match(graph)
    assert (found and found.family.name) == family
    lowered = hub.match(lower(graph))
    assert lowered == found, "fusing changes no fact"
    if found:
        assert hub.match(graph_of(hub.spec_text(hub.export_config(graph)))) == found
    else:
        with pytest.raises(ValueError, match="none of the families"):
            hub.export_config(graph)


@pytest.mark.parametrize(
    ("spec", "nearest", "fields"),
    [
        ("block x2 < attn gqa(4,2) rope(dims=4) d_head=6 >", "Llama", ["attn.rope.dims"]),
        ("block x2 < attn gqa(4,2) rope qk_norm=rms scale=2 >", "Llama",
         ["attn.qk_norm", "attn.qk_norm.eps", "attn.scale", "weights"]),
        ("block x2 < attn gqa(4,2) rope bias >", "Llama", ["attn.bias, attn.out_bias"]),
        ("logits(cap=30)\nblock x2 < attn gqa(4,2) rope >", "Llama", ["logits.cap"]),
        ("block x2 < attn gqa(4,2) rope > moe top2/4", "Jamba", ["attn.rope"]),  # or a Mixtral but for renorm
        (f"block x2 < {MAMBA}, attn gqa(4,2) d_head=16 >", "Jamba", ["attn.d_head"]),
        (f"block < {MAMBA} x3, attn gqa(4,2), {MAMBA}, attn gqa(4,2) >", "Jamba", ["layers"]),
        (f"block x2 < {MAMBA} > moe every 2 top1/1", "Jamba", ["moe.n_experts"]),
        ("block < attn gqa(4,2) rope, attn gqa(4,2) rope window(8) >", None, ["attn.window"]),
        ("block x2 < attn gqa(4,2) rope || attn gqa(4,2) rope >", "Llama", ["layers", "weights"]),
        ("share g = mamba\nblock x2 < attn gqa(4,2) rope <- g >", None, None),
    ],
)  # fmt: skip
def test_what_keeps_a_model_out_is_named(spec: str, nearest: str | None, fields: list[str] | None) -> None:
    with pytest.raises(hub.UnsupportedModel) as raised:
        hub.export_config(graph_of(HEADER + spec))
    assert raised.value.message.endswith(f"nearest to {nearest}") or nearest is None
    assert fields is None or [field for field, _ in raised.value.problems] == fields
    assert raised.value.problems
    assert all(f"{field}: {why}" in str(raised.value) for field, why in raised.value.problems)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ([True] * 4, (1, 0)),
        ([False] * 4, (5, 4)),
        ([False, True] * 3, (2, 1)),
        ([False, False, True, False], (4, 2)),
        ([True], (1, 0)),
        ([True, True, False], None),
        ([False, False, True, True], None),  # the first of a period of 1 would be layer 0
    ],
)
def test_periods(at: list[bool], expected: tuple[int, int] | None) -> None:
    assert periodic(at) == expected


# --- the emitted module ----------------------------------------------------------------------------


def test_hub_py_is_a_clean_module(tmp_path: Path) -> None:
    specs = [path.read_text() for path in (ROOT / "specs").glob("*.arch")]
    for i, spec in enumerate([*specs, HEADER + "block x2 < attn gqa(4,2) rope scale=3 >"]):
        match, module = hub.match(graph_of(spec)), hub.hub_py(graph_of(spec))
        (tmp_path / f"hub_{i}.py").write_text(module)
        matches = (match, *match.others) if match else ()
        assert [(one.family.name, one.config, one.rows, one.uses) for one in matches] == [
            (one.name, one.config, one.rows, one.uses) for one in families(module)
        ]
    for command in (["ruff", "check", "--select=E,F,W,I,N,UP,B,C4,SIM,RUF,D1"], ["ruff", "format", "--check"]):
        arguments = [sys.executable, "-m", *command, "--isolated", "--line-length=120", str(tmp_path)]
        run = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


def test_a_mistral_without_a_window_is_a_llama() -> None:
    found = hub.match(graph_of(hub.spec_text(config_of("mistral_7b_v0_1") | {"sliding_window": None})))
    assert found is not None
    assert found.family.name == "llama"
    mistral = next(other for other in found.others if other.family.name == "mistral")
    assert mistral.rows == found.rows
    assert mistral.config["sliding_window"] is None


def test_what_may_be_said_in_other_words() -> None:
    (jamba,) = families(hub.hub_py(graph_of((ROOT / "specs" / "jamba_tiny.arch").read_text())))
    assert jamba.rephrased == (
        "attn_layer_offset",
        "attn_layer_period",
        "expert_layer_offset",
        "expert_layer_period",
        "mamba_dt_rank",
        "max_position_embeddings",
    )


def test_a_tied_head_is_a_second_name() -> None:
    match = hub.match(graph_of(HEADER + "tied\nblock x2 < attn gqa(4,2) rope >"))
    assert match is not None
    names = [theirs for ours, theirs in match.rows if ours == "embed.weight"]
    assert names == ["model.embed_tokens.weight", "lm_head.weight"]
    assert "lm_head.weight" not in dict(match.rows)


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "keys"),
    [
        ("llama_2_7b", {"model_type": "gpt2"}, {"model_type"}),
        ("llama_2_7b", {"model_type": None}, {"model_type"}),
        ("llama_2_7b", {"hidden_act": "gelu"}, {"hidden_act"}),
        ("llama_2_7b", {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_scaling.type"}),
        ("llama_3_8b", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, {"rope_scaling.rope_type"}),
        ("llama_3_8b", {"rope_parameters": {"rope_theta": 1e4}}, {"rope_parameters.rope_theta"}),  # and rope_theta
        ("llama_2_7b", {"rope_parameters": {"wavelength": 3}}, {"rope_parameters.wavelength"}),
        ("llama_2_7b", {"rope_parameters": 7}, {"rope_parameters"}),
        ("llama_2_7b", {"partial_rotary_factor": 0.5}, {"partial_rotary_factor"}),
        ("llama_2_7b", {"quantization_config": {"bits": 4}}, {"quantization_config"}),
        ("llama_2_7b", {"sliding_window": 4096}, {"sliding_window"}),
        ("llama_2_7b", {"num_attention_heads": 24, "num_key_value_heads": 24}, {"num_attention_heads"}),
        ("llama_2_7b", {"num_key_value_heads": 3}, {"num_key_value_heads"}),
        ("llama_2_7b", {"head_dim": 5}, {"head_dim"}),
        ("llama_2_7b", {"num_attention_heads": 10**6, "num_key_value_heads": 1}, {"num_attention_heads"}),
        ("llama_2_7b", {"architectures": ["LlamaForSequenceClassification"]}, {"architectures"}),
        ("llama_2_7b", {"vocab_size": "32000"}, {"vocab_size"}),
        ("llama_2_7b", {"vocab_size": True}, {"vocab_size"}),
        ("llama_2_7b", {"vocab_size": None}, {"vocab_size"}),
        ("llama_2_7b", {"num_key_value_heads": "auto"}, {"num_key_value_heads"}),
        ("llama_2_7b", {"vocab_size": 0}, {"vocab_size"}),
        ("llama_2_7b", {"vocab_size": 10**30}, {"vocab_size"}),
        ("llama_2_7b", {"rms_norm_eps": float("nan")}, {"rms_norm_eps"}),
        ("llama_2_7b", {"rms_norm_eps": 0}, {"rms_norm_eps"}),
        ("llama_2_7b", {"rms_norm_eps": [], "mlp_bias": 1, "residual_multiplier": 2.0},
         {"rms_norm_eps", "mlp_bias", "residual_multiplier"}),
        ("mistral_7b_v0_1", {"attention_bias": True}, {"attention_bias"}),
        ("mistral_7b_v0_1", {"layer_types": ["full_attention"] * 32}, {"layer_types"}),
        ("mixtral_8x7b", {"router_jitter_noise": 0.1}, {"router_jitter_noise"}),
        ("mixtral_8x7b", {"num_experts_per_tok": 9}, {"num_experts_per_tok"}),
        ("mixtral_8x7b", {"num_experts": 4}, {"num_experts"}),  # beside num_local_experts 8
        ("jamba_v0_1", {"attn_layer_offset": 8}, {"attn_layer_offset"}),
        ("jamba_v0_1", {"expert_layer_offset": 2}, {"expert_layer_offset"}),
        ("jamba_v0_1", {"sliding_window": 4096}, {"sliding_window"}),
        ("jamba_v0_1", {"mamba_inner_layernorms": False}, {"mamba_inner_layernorms"}),
        ("jamba_v0_1", {"head_dim": 64}, {"head_dim"}),
        ("jamba_v0_1", {"num_hidden_layers": 10**9}, {"num_hidden_layers"}),
        ("phi_3_mini", {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}},
         {"rope_scaling.type"}),
        ("phi_3_mini", {"rope_scaling": {"type": "su"}}, {"rope_scaling.type"}),
        ("phi_3_mini", {"partial_rotary_factor": 1.5}, {"rope_parameters.partial_rotary_factor"}),
        ("phi_3_mini", {"partial_rotary_factor": 0.01}, {"rope_parameters.partial_rotary_factor"}),
        ("phi_3_mini", {"attention_bias": True}, {"attention_bias"}),
        ("phi_3_mini", {"hidden_act": "gelu"}, {"hidden_act"}),
        ("phi_3_mini", {"head_dim": 64}, {"head_dim"}),
        ("mamba_130m", {"rms_norm": False}, {"rms_norm"}),
        ("mamba_130m", {"intermediate_size": 1000}, {"intermediate_size"}),
        ("mamba_130m", {"ssm_cfg": {"layer": "Mamba2"}}, {"ssm_cfg"}),
        ("mamba_130m", {"time_step_rank": None}, {"time_step_rank"}),
        ("mamba_130m", {"time_step_rank": "automatic"}, {"time_step_rank"}),
        ("mamba2_130m", {"time_step_limit": [0.001, 0.1]}, {"time_step_limit"}),
        ("mamba2_130m", {"num_heads": 25}, {"expand"}),
        ("mamba2_130m", {"n_groups": 7}, {"n_groups"}),
        ("mamba2_130m", {"norm_before_gate": True}, {"norm_before_gate"}),
        ("nvidia_mamba2_hybrid_8b", {"hybrid_override_pattern": "M-ME*"}, {"hybrid_override_pattern"}),
        ("nvidia_mamba2_hybrid_8b", {"hybrid_override_pattern": ""}, {"hybrid_override_pattern"}),
        ("nvidia_mamba2_hybrid_8b", {"hybrid_override_pattern": None}, {"layers_block_type"}),
        ("nvidia_mamba2_hybrid_8b", {"hybrid_override_pattern": "M-*"}, {"num_hidden_layers"}),
        ("nvidia_mamba2_hybrid_8b", {"layers_block_type": ["mlp"] * 56}, {"hybrid_override_pattern"}),
        ("nvidia_mamba2_hybrid_8b", {"layers_block_type": ["moe", ["mlp"], 3]}, {"layers_block_type"}),
        ("nvidia_mamba2_hybrid_8b", {"layers_block_type": "mlp"}, {"layers_block_type"}),
        ("nvidia_mamba2_hybrid_8b", {"tie_word_embeddings": True}, {"tie_word_embeddings"}),
        ("nvidia_mamba2_hybrid_8b", {"mlp_hidden_act": "silu"}, {"mlp_hidden_act"}),
        ("nvidia_mamba2_hybrid_8b", {"time_step_limit": [0.0, 0.1]}, {"time_step_limit"}),
        ("nvidia_mamba2_hybrid_8b", {"num_nextn_predict_layers": 1}, {"num_nextn_predict_layers"}),
        ("zamba_7b_v1", {"attention_hidden_size": 3712}, {"attention_hidden_size"}),
        ("zamba_7b_v1", {"n_mamba_heads": 3}, {"n_mamba_heads"}),
        ("zamba_7b_v1", {"hidden_act": "silu"}, {"hidden_act"}),
        ("zamba_7b_v1", {"layers_block_type": None, "num_hidden_layers": 2}, {"num_hidden_layers"}),
        ("zamba_7b_v1", {"layers_block_type": ["mamba"] * 76}, {"layers_block_type"}),
        ("zamba2_7b", {"use_long_context": True}, {"use_long_context"}),
        ("zamba2_7b", {"hybrid_layer_ids": [6, 11]}, {"hybrid_layer_ids"}),
        ("zamba2_7b", {"layers_block_type": None}, {"num_hidden_layers"}),  # transformers would put those of the 2.7B
        ("zamba2_7b", {"mamba_headdim": 32}, {"mamba_expand"}),
        ("zamba2_7b", {"use_conv_bias": False}, {"use_conv_bias"}),
        ("zamba2_1_2b", {"num_key_value_heads": 8}, {"num_key_value_heads"}),  # adapters
        ("zamba2_1_2b", {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_scaling.type"}),
    ],
)  # fmt: skip
def test_unsupported_keys_are_named(name: str, change: dict[str, object], keys: set[str]) -> None:
    with pytest.raises(hub.UnsupportedConfig) as raised:
        hub.spec_text(config_of(name) | change)
    assert {key for key, _ in raised.value.problems} == keys
    assert all(key in str(raised.value) for key in keys)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '"llama"', "{}", '{"model_type": ["llama"]}'])
def test_what_is_no_configuration_is_refused(content: str) -> None:
    with pytest.raises(hub.UnsupportedConfig):
        hub.import_config(content)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Jamba-v0.1", "jamba_v0_1"),
        ("7B", "model_7b"),
        ("block", "block_model"),
        ("x4", "x4_model"),
        ("\u00e9\n; block", "block_model"),
        ("...", "imported"),
    ],
)
def test_names_become_words(name: str, word: str) -> None:
    assert hub.spec_text(config_of("mamba_130m"), name).splitlines()[1] == f"model {word}"


# --- repeats ---------------------------------------------------------------------------------------


def unroll(run: Run) -> list[str]:
    return [word for item in run.items for word in ([item] if isinstance(item, str) else unroll(item))] * run.count


def test_repeats_unroll_to_what_they_stand_for() -> None:
    draw = random.Random(0)
    for _ in range(200):
        words = draw.choices("ab", [1, draw.choice([1, 5])], k=draw.randint(1, 24)) * draw.choice([1, 1, 2, 3])
        words += words[: draw.choice([0, 0, len(words) // 2])]
        assert unroll(rolled(words)) == words
    long = draw.choices("ab", k=300)
    assert unroll(rolled(long)) == long


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("m", "< m >"),
        ("mmm", "x3 < m >"),
        ("mam", "< m, a, m >"),
        ("mmmmammm" * 4, "x4 < m x4, a, m x3 >"),
        ("mmf" * 2 + "a" + "mmf" * 2 + "a" + "b", "< < < m x2, f > x2, a > x2, b >"),
    ],
)
def test_repeats_are_short(words: str, expected: str) -> None:
    assert text(rolled(list(words))) == expected


def test_an_irregular_stack_is_short_too() -> None:
    """The 56 layers of NVIDIA's hybrid 8B, arXiv:2406.07887."""
    words = list("mfmfmffmfmafmfmfmfmffmafmfmfmfmfmaffmfmfmfmfmafmffmfmfmf")
    run = rolled(words)
    assert unroll(run) == words
    assert text(run) == (
        "< < m, f > x3, < f, m > x2, a, < f, m > x4, f x2, m, a, < < f, m > x5, a, f > x2, m, f x2, < m, f > x3 >"
    )
