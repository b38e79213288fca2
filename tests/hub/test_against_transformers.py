"""Our tables against transformers itself: keys, defaults, names and shapes of random tiny models."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest

from archc import hub
from archc.diagnostics import Source
from archc.elaborate.elaborate import elaborate
from archc.grammar.parse import parse
from archc.hub import every_config
from archc.hub.rules import RULES
from archc.ir.graph import Graph, unrolled

from .configs import FAMILIES, config_class, random_config
from .emitted import families

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from archc.codegen.runtime.hf_names import pairs  # noqa: E402 (torch is there)
from archc.codegen.runtime.shards import Info  # noqa: E402

N_RANDOM = 50
Shapes = dict[str, tuple[int, ...]]


def graph_of(config: Any) -> Graph:
    """The graph of the file that transformers would write for `config`."""
    return elaborate(parse(Source("config.json", hub.import_config(config.to_json_string()))))[0]


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_every_key_is_classified(name: str) -> None:
    """What transformers reads is mapped, known to be inert, or refused unless it has its default."""
    family, cls = FAMILIES[name], config_class(name)
    known = {key.name for key in family.keys} | {only.name for only in (*family.only, *every_config.ONLY)}
    known = {key.partition(".")[0] for key in known} | set(family.inert) | set(every_config.INERT)
    known |= set(family.pattern.names) if family.pattern else set()
    assert not {field.name for field in fields(cls)} - known
    written = set(json.loads(cls(architectures=[family.architecture]).to_json_string()))
    assert not written - known


@pytest.mark.parametrize("name", FAMILIES)
def test_defaults_are_transformers_own(name: str) -> None:
    """A key that a file leaves out means what it means there."""
    family, cls = FAMILIES[name], config_class(name)
    defaults = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
    defaults["rope_parameters.rope_theta"] = getattr(cls, "default_theta", None)
    rope = getattr(cls(), "rope_parameters", None) or {}
    if "partial_rotary_factor" in rope:
        defaults["rope_parameters.partial_rotary_factor"] = rope["partial_rotary_factor"]
    for key in family.keys:
        if not key.fixed:  # what is no field there is worked out from the fields
            assert key.absent == defaults.get(key.name), key.name
    for only in (*family.only, *every_config.ONLY):
        if only.name in defaults:
            default = defaults[only.name]
            assert only.value == (list(default) if isinstance(default, tuple) else default), only.name
    written = {only.name for only in family.only if only.written and "." not in only.name}
    assert written <= set(defaults)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (family.name, key.name)
        for family in hub.FAMILIES
        for key in family.keys
        if key.null and key.null != "none" and key.absent in (None, "auto")
    ],
)
def test_rules_are_transformers_own(name: str, key: str) -> None:
    """null and "auto" become there what our rules say, unless every layer works it out for itself."""
    config = config_class(name)(hidden_size=72, **({} if name == "mamba" else {"num_attention_heads": 6}))
    rule = next(RULES[found.null] for found in FAMILIES[name].keys if found.name == key)
    resolved = getattr(config, key, None)
    if resolved is None:
        assert key == "head_dim"
    else:
        mixer = {"mamba.expand": 2, "mamba2.expand": 2, "mamba2.n_heads": 8}
        assert resolved == rule({"d_model": 72, "attn.n_heads": 6, **mixer})


def test_what_is_not_supported_is_not_made_up() -> None:
    """transformers' default of Nemotron-H has a layer of experts."""
    assert "moe" in config_class("nemotron_h")().layers_block_type
    with pytest.raises(hub.UnsupportedConfig, match="layers_block_type: it is missing"):
        hub.spec_text({"model_type": "nemotron_h"})


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "nemotron_h"])
def test_an_empty_file_is_the_default_model(name: str) -> None:
    ours = hub.export_config(elaborate(parse(Source("spec", hub.spec_text({"model_type": name}))))[0], name)
    theirs = config_class(name)()
    for key, value in ours.items():
        if key == "pad_token_id":
            assert name == "phi3", "transformers assumes one"
        elif getattr(theirs, key, None) is None:  # worked out when the model is made
            assert key in {"architectures", "head_dim", "sliding_window"}
        else:
            assert getattr(theirs, key) == value, key


# --- tensors ---------------------------------------------------------------------------------------


def in_files(name: str, shapes: Shapes) -> Shapes:
    """The tensors of a state_dict as transformers 5 writes them: one for each expert (`test_as_on_disk` proves it)."""
    groups = {
        "jamba": (".feed_forward.experts.", ".feed_forward.experts.", ("gate_proj", "up_proj", "down_proj")),
        "mixtral": (".mlp.experts.", ".block_sparse_moe.experts.", ("w1", "w3", "w2")),
    }
    found: Shapes = {}
    for tensor, shape in shapes.items():
        inside, outside, (gate, up, down) = groups.get(name, ("no experts", "", ("", "", "")))
        if inside in tensor:
            n_experts, rows, columns = shape
            halves = [(down, rows)] if tensor.endswith("down_proj") else [(gate, rows // 2), (up, rows // 2)]
            prefix = tensor.partition(inside)[0] + outside
            found |= {f"{prefix}{i}.{part}.weight": (n, columns) for i in range(n_experts) for part, n in halves}
        else:
            before, after = RENAMED.get(name, ("", ""))
            found[tensor.replace(before, after) if before else tensor] = shape
    return found


RENAMED = {"mixtral": (".mlp.gate.", ".block_sparse_moe.gate."), "nemotron_h": ("model.", "backbone.")}


def canonical(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Our tensors and their shapes, every layer by itself, every copy of a shared module once."""
    places = [("", node) for program in (graph.prologue, graph.epilogue) for node in program.nodes]
    for i, layer in enumerate(unrolled(graph.stack)):
        shared = {scope.name: scope.shared for scope in layer.scopes if scope.shared}
        for node in layer.graph.nodes:
            root, _, inside = node.scope.partition(".")
            use = shared.get(root)
            if use is None:
                place = f"layers.{i}.{node.scope}"
            else:
                place = f"layers.{i}.{root}_use.{inside}" if node.per_use else f"{use.name}.{use.copy}.{inside}"
            places.append((place, node))
    return {
        ".".join(filter(None, (place.strip("."), weight.path))): tuple(axis.size.value for axis in weight.axes)
        for place, node in places
        for weight in node.op.weights()
    }


def renamed(graph: Graph, name: str) -> Shapes:
    """Our tensors under the names that a family's emitted rows give them, with the shapes that they have there."""
    family = next(family for family in families(hub.hub_py(graph)) if family.name == name)
    infos = {ours: Info(torch.float32, shape) for ours, shape in canonical(graph).items()}
    found = pairs(infos, family.rows, family.uses)
    return {theirs: pair.their_shape for pair in found for theirs in pair.names}


@cache
def auto_class() -> Any:
    return transformers.AutoModelForCausalLM


@pytest.mark.parametrize("name", FAMILIES)
def test_names_and_shapes(name: str) -> None:
    """Every tensor of transformers' model is one of ours of the same shape, and ours are all of them."""
    for seed in range(N_RANDOM):
        config = random_config(name, seed)
        with torch.device("meta"):
            model = auto_class().from_config(config)
        tied = model.all_tied_weights_keys
        theirs = in_files(name, {k: tuple(v.shape) for k, v in model.state_dict().items() if k not in tied})
        graph = graph_of(config)
        assert renamed(graph, name) == theirs, config
        if tied or name not in ("zamba", "zamba2"):  # transformers shares no block where it ties no embedding
            n_parameters = sum(parameter.numel() for parameter in model.parameters())
            assert n_parameters == sum(map(prod, canonical(graph).values()))


@pytest.mark.parametrize("name", FAMILIES)
def test_round_trip(name: str) -> None:
    """What our config.json says is what theirs said; a layer pattern may be said in another way."""
    for seed in range(N_RANDOM):
        config = random_config(name, seed)
        ours = hub.export_config(graph_of(config), name)
        back = config_class(str(ours["model_type"]))(**{k: v for k, v in ours.items() if k != "model_type"})
        assert ours["model_type"] == name
        assert back.architectures == config.architectures
        patterns = ("layers_block_type", "layers_num_experts")
        said_otherwise = {"model_type", "architectures"}
        if name == "jamba":
            said_otherwise |= {"attn_layer_period", "attn_layer_offset", "expert_layer_period", "expert_layer_offset"}
            assert all(getattr(back, pattern) == getattr(config, pattern) for pattern in patterns)
        for key in ours.keys() - said_otherwise:
            if hasattr(config, key) and getattr(config, key) is not None:
                assert getattr(back, key) == getattr(config, key), key


@pytest.mark.parametrize(
    ("name", "tied"),
    [
        (name, tied)
        for name, family in FAMILIES.items()
        for tied in (False, True)
        if not tied or "tied" not in family.always
    ],
)
def test_as_on_disk(name: str, tied: bool, tmp_path: Path) -> None:
    """A saved directory holds our names and shapes, and its own config.json imports."""
    safetensors = pytest.importorskip("safetensors")
    config = next(c for c in (random_config(name, i) for i in range(200)) if rich(c, tied))
    auto_class().from_config(config).save_pretrained(tmp_path)
    spec = hub.import_config((tmp_path / "config.json").read_text())
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
    assert renamed(elaborate(parse(Source("config.json", spec)))[0], name) == shapes


def rich(config: Any, tied: bool) -> bool:
    """Whether a configuration has layers of every kind of its family."""
    if config.model_type == "jamba":
        kinds = set(config.layers_block_type), set(config.layers_num_experts)
        if any(len(kind) != 2 for kind in kinds):
            return False
    if config.model_type == "nemotron_h" and len(set(config.layers_block_type)) < 3:
        return False
    return bool(config.tie_word_embeddings == tied and config.num_hidden_layers > 1)
