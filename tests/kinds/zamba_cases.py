"""Random tiny Zambas and Zamba2s: our spec, transformers' model, and how its tensors are made of ours."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers

VOCAB = 29
EPS = 3e-5
COMMON = {"vocab_size": VOCAB, "rms_norm_eps": EPS, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}

Tensors = Mapping[str, Any]
Read = Callable[[Tensors], Any]  # a tensor of theirs from ours, parameters and gradients alike


@dataclass(frozen=True)
class Case:
    """One random configuration: our spec, their model, and how their tensors are made of ours."""

    spec: str
    theirs: Callable[[], Any]
    table: dict[str, Read]
    drawn: dict[str, Any]


def one(name: str) -> Read:
    return lambda ours: ours[name]


def stacked(*names: str) -> Read:
    return lambda ours: torch.cat([ours[name] for name in names])


def layer_kinds(draw: random.Random, uses: int) -> list[str]:
    """Layers in random order, `uses` of which use a shared block."""
    kinds = ["hybrid"] * uses + ["linear_attention"] * draw.randint(1, 3)
    draw.shuffle(kinds)
    return kinds


def spec(name: str, d_model: int, tied: bool, mixer: str, share: str, kinds: list[str]) -> str:
    block = ", ".join("m <- g" if kind == "hybrid" else "m" for kind in kinds)
    head = [f"model tiny_{name}", f"vocab {VOCAB}", f"d_model {d_model}", f"norm rms(eps={EPS})", "mlp none"]
    return "\n".join([*head, *["tied"] * tied, f"let m = {mixer}", share, f"block < {block} >", ""])


def share_blocks(model: Any, kinds: list[str], copies: int, block: str) -> Any:
    """`model` with each use running its copy."""
    uses = [layer for layer, kind in zip(model.model.layers, kinds, strict=True) if kind == "hybrid"]
    for use, layer in enumerate(uses):
        setattr(layer, block, getattr(uses[use % copies], block))
    return model


def ends(tied: bool) -> dict[str, Read]:
    table = {"model.embed_tokens.weight": one("embed.weight"), "model.final_layernorm.weight": one("norm.weight")}
    return table if tied else {**table, "lm_head.weight": one("lm_head.weight")}


# --- Zamba2 ----------------------------------------------------------------------------------------


def zamba2(seed: int) -> Case:
    draw = random.Random(f"zamba2 {seed}")
    groups, copies, heads = draw.choice([1, 2, 3]), draw.choice([1, 2, 3]), draw.choice([1, 2, 3])
    rope, adapted, bias, tied = (draw.random() < 0.5 for _ in range(4))
    d_model = draw.choice([24, 30, 36])
    n_heads = groups * draw.choice([n for n in (1, 2, 3) if 2 * d_model % (groups * n) == 0])
    kinds = layer_kinds(draw, copies + draw.randint(0, 2))
    shared = {"hidden_size": d_model, "num_hidden_layers": len(kinds), "layers_block_type": kinds}
    sizes = {
        "mamba_d_state": draw.choice([2, 5, 8]),
        "mamba_d_conv": draw.choice([2, 3, 4]),
        "mamba_ngroups": groups,
        "n_mamba_heads": n_heads,
        "chunk_size": draw.choice([2, 4, 16]),
        "num_attention_heads": heads,
        "num_key_value_heads": heads if adapted else draw.choice([n for n in (1, 2, 3) if heads % n == 0]),
        "intermediate_size": draw.choice([5, 8]),
        "adapter_rank": draw.randint(1, 4),
        "num_mem_blocks": copies,
        "use_shared_attention_adapter": adapted,
        "use_mem_rope": rope,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        "add_bias_linear": bias,
        "tie_word_embeddings": tied,
        "time_step_min": draw.choice([0.3, 0.001]),  # the first is seen, the second is theirs
    }
    clamped = seed % 2 == 0

    def theirs() -> Any:
        model = transformers.Zamba2ForCausalLM(transformers.Zamba2Config(**COMMON, **shared, **sizes))
        if not clamped:
            for module in model.modules():
                if hasattr(module, "time_step_limit"):
                    module.time_step_limit = (0.0, float("inf"))  # as published
        return model if tied else share_blocks(model, kinds, copies, "shared_transformer")

    names = {"d_state": "mamba_d_state", "d_conv": "mamba_d_conv", "n_groups": "mamba_ngroups", "chunk": "chunk_size"}
    fields = [f"n_heads={n_heads}", f"d_head={2 * d_model // n_heads}", *(f"{f}={sizes[n]}" for f, n in names.items())]
    fields += ["bias"] * bias + [f"dt_limit({sizes['time_step_min']})"] * clamped
    rank, d_head = sizes["adapter_rank"], 2 * d_model // heads
    attn = f"attn gqa({heads},{sizes['num_key_value_heads']}) d_head={d_head} scale=1/sqrt({d_head}/2)"
    attn += " rope(theta=100)" * rope + f" lora({rank}, on=[q, k, v])" * adapted
    mlp = f"geglu({sizes['intermediate_size']}{', bias' * bias}) lora({rank}, on=[gate_up])"
    share = f"share g(in=concat(h, embed), residual=none, out=linear) x{copies} = {attn} + {mlp}"
    text = spec("zamba2", d_model, tied, f"mamba2({', '.join(fields)})", share, kinds)
    return Case(
        text, theirs, {**ends(tied), **zamba2_table(kinds, copies, adapted, bias)}, {**sizes, "clamped": clamped}
    )


def zamba2_table(kinds: list[str], copies: int, adapted: bool, bias: bool) -> dict[str, Read]:
    """Adapters are numbered by use in theirs, and lie in the copy that the use runs."""
    table: dict[str, Read] = {}
    hybrid = [i for i, kind in enumerate(kinds) if kind == "hybrid"]
    kept = ["weight", "bias"] if bias else ["weight"]
    for i, kind in enumerate(kinds):
        inside = f"model.layers.{i}.{'mamba_decoder.' * (kind == 'hybrid')}"
        table[f"{inside}input_layernorm.weight"] = one(f"layers.{i}.mixer_norm.weight")
        tensors = ["dt_bias", "A_log", "D", "conv1d.weight", "conv1d.bias", "norm.weight"]
        tensors += [f"{projection}.{part}" for projection in ("in_proj", "out_proj") for part in kept]
        table |= {f"{inside}mamba.{tensor}": one(f"layers.{i}.mixer.{tensor}") for tensor in tensors}
    for copy, i in enumerate(hybrid[:copies]):
        table |= shared_block(f"model.layers.{i}.shared_transformer", f"g.{copy}")
        mlp = f"model.layers.{i}.shared_transformer.feed_forward"
        for part in kept:
            table[f"{mlp}.gate_up_proj.{part}"] = stacked(*(f"g.{copy}.mlp.{n}_proj.{part}" for n in ("gate", "up")))
            table[f"{mlp}.down_proj.{part}"] = one(f"g.{copy}.mlp.down_proj.{part}")
    for use, i in enumerate(hybrid):
        table[f"model.layers.{i}.linear.weight"] = one(f"layers.{i}.g_out.weight")
        block = f"model.layers.{hybrid[use % copies]}.shared_transformer"
        adapters = {"mlp.gate_up": f"{block}.feed_forward.gate_up_proj_adapter_list"}
        adapters |= {f"mixer.{n}": f"{block}.self_attn.linear_{n}_adapter_list" for n in ("q", "k", "v") if adapted}
        for ours, theirs in adapters.items():
            for side, matrix in enumerate("AB"):
                table[f"{theirs}.{use}.{side}.weight"] = one(f"layers.{i}.g_use.{ours}_adapter_{matrix}.weight")
    return table


def shared_block(theirs: str, ours: str) -> dict[str, Read]:
    attention = {f"{theirs}.self_attn.{n}_proj.weight": one(f"{ours}.mixer.{n}_proj.weight") for n in "qkvo"}
    return {
        f"{theirs}.input_layernorm.weight": one(f"{ours}.mixer_norm.weight"),
        f"{theirs}.pre_ff_layernorm.weight": one(f"{ours}.mlp_norm.weight"),
        **attention,
    }


# --- Zamba -----------------------------------------------------------------------------------------


def zamba(seed: int) -> Case:
    draw = random.Random(f"zamba {seed}")
    n_heads, heads, expand = draw.choice([1, 2, 3]), draw.choice([1, 2, 3]), draw.choice([1, 2])
    bias, conv_bias, tied = draw.random() < 0.5, draw.random() < 0.5, draw.random() < 0.5
    d_model = 6 * heads
    kinds = layer_kinds(draw, draw.randint(1, 3))
    sizes = {
        "hidden_size": d_model,
        "num_hidden_layers": len(kinds),
        "layers_block_type": kinds,
        "n_mamba_heads": n_heads,
        "mamba_d_state": draw.choice([2, 3, 5]),
        "mamba_d_conv": draw.choice([2, 4]),
        "mamba_expand": expand,
        "mamba_dt_rank": draw.choice([1, 3]),
        "mamba_proj_bias": bias,
        "mamba_conv_bias": conv_bias,
        "num_attention_heads": heads,
        "num_key_value_heads": draw.choice([n for n in (1, 2, 3) if heads % n == 0]),
        "intermediate_size": draw.choice([5, 8]),
        "tie_word_embeddings": tied,
        "use_associative_scan": False,
    }

    def theirs() -> Any:
        model = transformers.ZambaForCausalLM(transformers.ZambaConfig(**COMMON, **sizes))
        return model if tied else share_blocks(model, kinds, 1, "shared_transf")

    names = {"d_state": "mamba_d_state", "d_conv": "mamba_d_conv", "expand": "mamba_expand", "dt_rank": "mamba_dt_rank"}
    fields = [f"n_heads={n_heads}", *(f"{field}={sizes[name]}" for field, name in names.items())]
    fields += ["bias"] * bias + ["conv_bias=false"] * (not conv_bias)
    d_head = 2 * d_model // heads
    attn = f"attn gqa({heads},{sizes['num_key_value_heads']}) d_head={d_head} scale=1/sqrt({d_head}/2)"
    share = f"share g(in=concat(h, embed), residual=none, out=linear) = {attn} + geglu({sizes['intermediate_size']})"
    text = spec("zamba", d_model, tied, f"mamba({', '.join(fields)})", share, kinds)
    return Case(text, theirs, ends(tied) | zamba_table(kinds, n_heads, bias, conv_bias), sizes)


def zamba_table(kinds: list[str], n_heads: int, bias: bool, conv_bias: bool) -> dict[str, Read]:
    """Rows of their in_proj alternate between x and gate, and all that is of a head leads with the heads, even one."""
    table: dict[str, Read] = {}
    hybrid = [i for i, kind in enumerate(kinds) if kind == "hybrid"]
    for i, kind in enumerate(kinds):
        inside = f"model.layers.{i}.{'mamba_decoder.' * (kind == 'hybrid')}"
        ours = f"layers.{i}.mixer"
        table[f"{inside}input_layernorm.weight"] = one(f"layers.{i}.mixer_norm.weight")
        table[f"{inside}mamba.conv1d.weight"] = one(f"{ours}.conv1d.weight")
        table |= {f"{inside}mamba.conv1d.bias": one(f"{ours}.conv1d.bias")} if conv_bias else {}
        for part in ("weight", "bias") if bias else ("weight",):
            table[f"{inside}mamba.in_proj.{part}"] = alternating(f"{ours}.in_proj.{part}")
            table[f"{inside}mamba.out_proj.{part}"] = one(f"{ours}.out_proj.{part}")
        for tensor in ("x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D"):
            table[f"{inside}mamba.{tensor.replace('.', '_')}"] = with_heads(f"{ours}.{tensor}", n_heads)
        if kind == "hybrid":
            table[f"model.layers.{i}.linear.weight"] = one(f"layers.{i}.g_out.weight")
    block = f"model.layers.{hybrid[0]}.shared_transf"
    mlp = {f"{block}.feed_forward.{n}_proj.weight": one(f"g.0.mlp.{n}_proj.weight") for n in ("gate", "up", "down")}
    return table | shared_block(block, "g.0") | mlp


def alternating(name: str) -> Read:
    return lambda ours: torch.stack(ours[name].chunk(2), dim=1).flatten(0, 1)


def with_heads(name: str, n_heads: int) -> Read:
    return lambda ours: ours[name] if n_heads > 1 else ours[name][None]
