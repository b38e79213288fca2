"""The Mamba-2 family of checkpoints: its config.json in and out, its names and shapes beside transformers' own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from archc.diagnostics import Source
from archc.elaborate.elaborate import elaborate
from archc.grammar.parse import parse
from archc.hub import read, write
from archc.hub.mamba2 import MAMBA2
from archc.hub.match import Match, best
from archc.ir.graph import Graph, unrolled
from archc.passes.pipeline import lower

SPECS = Path(__file__).parents[2] / "specs"
HEADER = "vocab 64; d_model 32; norm rms(eps=1e-6); mlp none\n"
RELEASED = {
    "mamba2_130m": (768, 24, 24),
    "mamba2_370m": (1024, 48, 32),
    "mamba2_780m": (1536, 48, 48),
    "mamba2_1_3b": (2048, 48, 64),
    "mamba2_2_7b": (2560, 64, 80),
}


def graph_of(spec: str) -> Graph:
    return elaborate(parse(Source("spec", spec)))[0]


def imported(config: dict[str, Any]) -> str:
    family, facts = read.facts_from(config, (MAMBA2,))
    return write.spec_text(family, facts, "imported")


def exported(graph: Graph) -> Match | None:
    return best(graph, (MAMBA2,))


def released(name: str) -> dict[str, Any]:
    """A config.json as transformers' conversion of a released checkpoint has it."""
    d_model, n_layers, n_heads = RELEASED[name]
    return {
        "model_type": "mamba2",
        "architectures": ["Mamba2ForCausalLM"],
        "vocab_size": 50288,
        "hidden_size": d_model,
        "num_hidden_layers": n_layers,
        "num_heads": n_heads,
        "head_dim": 64,
        "n_groups": 1,
        "expand": 2,
        "tie_word_embeddings": True,
        "time_step_limit": [0.0, {"__float__": "Infinity"}],
        "time_step_rank": d_model // 16,
        "transformers_version": "5.23.0",
    }


def tensors(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Our tensors under their names, with our shapes."""
    found = exported(graph)
    assert found is not None
    rows = dict(reversed(found.rows))  # the first row of a tied embedding is the one that a file always has
    programs = [("", "", graph.prologue), ("", "", graph.epilogue)]
    programs += [("layers.*", str(i), layer.graph) for i, layer in enumerate(unrolled(graph.stack))]
    shapes = {}
    for prefix, index, program in programs:
        for node in program.nodes:
            for weight in node.op.weights():
                ours = ".".join(filter(None, (prefix, node.scope, weight.path)))
                shapes[rows[ours].replace("*", index)] = tuple(axis.size.value for axis in weight.axes)
    return shapes


@pytest.mark.parametrize("name", RELEASED)
def test_released_configurations(name: str) -> None:
    """The file gives the model of the spec in the tree, in a dozen lines, and comes back."""
    spec = imported(released(name))
    by_hand, graph = graph_of((SPECS / f"{name}.arch").read_text()), graph_of(spec)
    assert len(spec.splitlines()) <= 16
    assert tensors(graph) == tensors(by_hand)
    ours, hand = exported(graph), exported(by_hand)
    assert ours is not None
    assert hand is not None
    assert ours.config == hand.config
    said = {key: value for key, value in released(name).items() if key in ours.config}
    assert {key: ours.config[key] for key in said} == said
    assert imported(dict(ours.config)) == spec


def test_the_released_model_in_one_line() -> None:
    *_, mamba2, _, block = imported(released("mamba2_130m")).splitlines()
    assert mamba2.startswith("let mamba2 = mamba2(n_heads=24, d_head=64, d_state=128, n_groups=1, d_conv=4, norm=rms")
    assert block == "block x24 < mamba2 >"


@pytest.mark.parametrize(
    ("mixer", "matches"),
    [
        ("mamba2(n_heads=1)", True),
        ("mamba2(n_heads=4, d_head=16, norm=rms)", True),
        ("mamba2(n_heads=8, d_head=16, norm=rms, n_groups=4, chunk=8)", True),  # expand 4
        ("mamba2(expand=1, d_head=16, norm=rms)", True),
        ("mamba2(n_heads=4, d_head=16, norm=rms, bias, conv_bias=false)", True),
        ("mamba2(n_heads=3, d_head=16, norm=rms)", False),  # 48 is no multiple of 32
        ("mamba2(n_heads=4, d_head=16)", False),  # one eps for all norms
        ("mamba2(n_heads=4, d_head=16, norm=none)", False),
        ("mamba2(n_heads=4, d_head=16, norm=rms, norm_before_gate)", False),
        ("mamba2(n_heads=4, d_head=16, norm=rms, dt_limit(0.1, 1))", False),
        ("mamba2(n_heads=4, d_head=16, norm=rms) + gelu(8)", False),
        ("mamba2(n_heads=4, d_head=16, norm=rms), mamba2(n_heads=2, d_head=32, norm=rms)", False),
    ],
)
def test_structure_decides(mixer: str, matches: bool) -> None:
    mixer = mixer.replace("n_heads=1)", "n_heads=1, norm=rms)")
    graph = graph_of(HEADER.replace("\n", ";") + f"block x2 < {mixer} >")
    found = exported(graph)
    assert (found is not None) == matches
    assert exported(lower(graph)) == found, "fusing changes no fact"
    if found:
        assert exported(graph_of(imported(dict(found.config)))) == found


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"expand": 3}, "expand"),
        ({"num_heads": 25}, "expand"),
        ({"head_dim": 0}, "head_dim"),
        ({"n_groups": 5}, "n_groups"),
        ({"time_step_limit": [0.001, 0.1]}, "time_step_limit"),
        ({"time_step_limit": [0.0, 1.0]}, "time_step_limit"),
        ({"rms_norm": False}, "rms_norm"),
        ({"norm_before_gate": True}, "norm_before_gate"),
        ({"ssm_cfg": {"d_state": 64}}, "ssm_cfg"),
        ({"num_head": 24}, "num_head"),
        ({"chunk_size": None}, "chunk_size"),
    ],
)
def test_what_no_spec_says_the_same_as_is_named(change: dict[str, Any], key: str) -> None:
    with pytest.raises(read.UnsupportedConfig) as raised:
        imported(released("mamba2_130m") | change)
    assert [name for name, _ in raised.value.problems] == [key]


# --- against transformers --------------------------------------------------------------------------


def random_config(seed: int) -> Any:
    transformers = pytest.importorskip("transformers")
    draw = random.Random(seed)
    groups, d_head, expand = draw.randint(1, 4), draw.randint(1, 6), draw.randint(1, 3)
    heads = groups * draw.randint(1, 3) * expand
    return transformers.Mamba2Config(
        architectures=["Mamba2ForCausalLM"],
        vocab_size=draw.randint(5, 40),
        hidden_size=heads * d_head // expand,
        num_hidden_layers=draw.randint(1, 5),
        num_heads=heads,
        head_dim=d_head,
        expand=expand,
        n_groups=groups,
        state_size=draw.randint(1, 20),
        conv_kernel=draw.randint(2, 5),
        use_bias=draw.random() < 0.5,
        use_conv_bias=draw.random() < 0.5,
        residual_in_fp32=draw.random() < 0.5,
        tie_word_embeddings=draw.random() < 0.5,
        layer_norm_epsilon=draw.choice([1e-5, 1e-6]),
        chunk_size=draw.choice([16, 256]),
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )


@pytest.mark.parametrize("seed", range(20))
def test_names_and_shapes_are_transformers_own(seed: int) -> None:
    """Every tensor of a random model of theirs is one of ours of the same shape; and the file comes back."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = random_config(seed)
    with torch.device("meta"):
        model = transformers.Mamba2ForCausalLM(config)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
    graph = graph_of(imported(json.loads(config.to_json_string())))
    assert tensors(graph) == theirs
    found = exported(graph)
    assert found is not None
    for key, value in found.config.items():
        assert getattr(config, key) == value, key


def test_the_table_knows_every_key_and_default() -> None:
    """What transformers reads is mapped, known to be inert, or refused unless it has its default."""
    from dataclasses import MISSING, fields

    from archc.hub import every_config

    config = pytest.importorskip("transformers").Mamba2Config
    defaults = {field.name: field.default for field in fields(config) if field.default is not MISSING}
    known = {key.name for key in MAMBA2.keys} | {one.name for one in (*MAMBA2.only, *every_config.ONLY)}
    assert {field.name for field in fields(config)} <= known | set(MAMBA2.inert) | set(every_config.INERT)
    assert all(key.absent == defaults[key.name] for key in MAMBA2.keys)
    for one in MAMBA2.only:
        if one.name in defaults:
            value = defaults[one.name]
            assert one.value == (list(value) if isinstance(value, tuple) else value)
