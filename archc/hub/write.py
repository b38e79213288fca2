"""Facts to a spec: the canonical text, as short as its layers allow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from archc.diagnostics import DiagnosticError, Source
from archc.grammar.format import format_spec
from archc.grammar.parse import parse
from archc.hub.family import Family
from archc.hub.read import UnsupportedConfig
from archc.hub.repeats import Run, rolled, text
from archc.hub.rules import RULES, Fact, Facts, whole

# How a kind's fields are written, in this order; heads are written where the layer is used.
_FIELDS = {
    "mamba": ("d_state", "d_conv", "expand", "dt_rank", "n_heads", "conv_bias", "bias", "inner_norm"),
    "mamba2": (
        "n_heads",
        "d_head",
        "d_state",
        "n_groups",
        "d_conv",
        "conv_bias",
        "bias",
        "norm",
        "norm_before_gate",
        "chunk",
    ),
    "attn": ("d_head", "qkv_conv", "rope", "scale", "window", "bias", "out_bias", "lora"),
}
_MLP = ("d_ff", "bias", "lora")  # of any channel mixer, the first without its name
_SHARE = "g"  # what a shared module is called
_DEFAULT_TRUE = {"conv_bias"}
MAX_PATTERN = 10_000  # layers whose order has to be written down


def spec_text(family: Family, facts: Facts, name: str) -> str:
    """The spec that says `facts`, formatted as `archc fmt` does."""
    lines = [
        f"# {family.title}, {family.source}: from a {family.config_file}",
        f"model {name}",
        "",
        *_settings(family, facts),
        "",
        *(f"let {kind} = {kind}({', '.join(_arguments(kind, facts))})" for kind in _kinds(family, facts)),
        "",
        *_share(facts),
        "",
        f"block {_block(family, facts)}{_suffix(family, facts)}",
    ]
    return format_spec(parse(Source(family.config_file, "\n".join(lines) + "\n")))


def spec_name(name: str) -> str:
    """`name` as a word of the language: `Jamba-v0.1` is jamba_v0_1."""
    word = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")[:60] or "imported"
    word = f"model_{word}" if word[0].isdigit() else word
    try:
        parse(Source("name", f"model {word}\n"))
    except DiagnosticError:  # a word of the grammar's own, such as `block`
        word = f"{word}_model"
    return word


def _settings(family: Family, facts: Facts) -> Iterator[str]:
    yield f"vocab {facts['vocab']}"
    yield f"d_model {facts['d_model']}"
    if facts.get("context") is not None:
        yield f"context {_binary(whole(facts, 'context'))}"
    yield f"norm {facts['norm']}(eps={_number(facts['norm.eps'])})"
    yield f"mlp {_mlp(family, facts)}"
    if facts["tied"]:
        yield "tied"
    if facts.get("residual.fp32"):
        yield "residual(dtype=fp32)"


def _mlp(family: Family, facts: Facts) -> str:
    if len(family.layers) < 2:
        return "none"
    d_ff = facts["swiglu.d_ff"] if "swiglu.d_ff" in facts else facts["moe.d_ff"]
    return f"swiglu({d_ff}{', bias' if facts.get('swiglu.bias') else ''})"


def _kinds(family: Family, facts: Facts) -> list[str]:
    """The kinds that layers name."""
    if family.pattern is not None:
        return list(dict.fromkeys(word.partition(" <- ")[0] for word in _layers(facts)))
    return [
        kind
        for kind in family.layers[0]
        if any(path.startswith(f"{kind}.") and not path.endswith((".every", ".offset")) for path in facts)
    ]


def _arguments(kind: str, facts: Facts) -> Iterator[str]:
    """The fields of a kind."""
    for name in _FIELDS.get(kind, _MLP):
        value = facts.get(f"{kind}.{name}")
        if name == "window":
            if value is not None:
                yield f"window({value})"
        elif name == "rope":
            yield _rope(facts) if value else "rope=none"
        elif name == "scale":
            if value is not None:
                half = RULES["1 / sqrt(attn.d_head / 2)"](facts)
                yield f"scale=1/sqrt({facts['attn.d_head']}/2)" if value == half else f"scale={_number(value)}"
        elif name == "qkv_conv":
            if value is not None:
                yield f"qkv_conv={value}({facts['attn.d_conv']})"
        elif name == "lora":
            if value is not None:
                yield f"lora({facts[f'{kind}.rank']}, on=[{facts[f'{kind}.lora.on']}])"
        elif name == "norm":
            if facts[f"{kind}.norm.eps"] == facts["norm.eps"]:
                yield f"norm={value}"
            else:
                yield f"norm={value}(eps={_number(facts[f'{kind}.norm.eps'])})"
        elif isinstance(value, bool):
            if value != (name in _DEFAULT_TRUE):
                yield name if value else f"{name}=false"
        elif name == "d_ff":
            yield str(value)
        elif value is not None:
            yield f"{name}={value}"


def _rope(facts: Facts) -> str:
    dims = facts.get("attn.rope.dims")
    return f"rope(theta={_number(facts['attn.rope.theta'])}{'' if dims is None else f', dims={dims}'})"


def _share(facts: Facts) -> Iterator[str]:
    """The shared module, if there is one."""
    if "share.copies" not in facts:
        return
    wiring = f"in={facts['share.in']}({facts['share.in.first']}, {facts['share.in.second']})"
    wiring += f", residual={facts['share.residual'] or 'none'}, out={facts['share.out']}"
    copies = f" x{facts['share.copies']}" if facts["share.copies"] != 1 else ""
    attn, mlp = str(facts["share.layer"]).split(" + ")
    d_ff, *rest = _arguments(mlp, facts)
    bias = ", bias" if "bias" in rest else ""
    words = [_heads(facts), *_arguments(attn, facts), "+", f"{mlp}({d_ff}{bias})", *(w for w in rest if w != "bias")]
    yield f"share {_SHARE}({wiring}){copies} = {' '.join(words)}"


def _heads(facts: Facts) -> str:
    return f"attn gqa({facts['attn.n_heads']},{facts['attn.n_kv_heads']})"


def _layers(facts: Facts) -> tuple[str, ...]:
    layers = facts["layers"]
    assert isinstance(layers, tuple)
    return layers


def _block(family: Family, facts: Facts) -> str:
    """The mixers of all layers, rolled."""
    n_layers = whole(facts, "n_layers")
    words = {kind: kind for kind in _kinds(family, facts)}
    if "attn" in words and "attn.n_heads" in facts:
        words["attn"] = _heads(facts)
    if family.pattern is None and len(family.layers[0]) == 1:
        return text(Run(n_layers, tuple(words.values())))
    if n_layers > MAX_PATTERN:
        raise UnsupportedConfig((family.key_of("n_layers"), f"a pattern of more than {MAX_PATTERN} layers"))
    if family.pattern is not None:
        return text(rolled([words.get(word, word.replace("<- share", f"<- {_SHARE}")) for word in _layers(facts)]))
    first, second = family.layers[0]
    every, offset = whole(facts, f"{second}.every"), whole(facts, f"{second}.offset")
    return text(rolled([words[second if i % every == offset else first] for i in range(n_layers)]))


def _suffix(family: Family, facts: Facts) -> str:
    """Where the experts are, if there are any."""
    if "moe.n_experts" not in facts:
        return ""
    router = "(router=softmax(renorm))" if facts["moe.router.renorm"] else ""
    every, offset = facts.get("moe.every", 1), facts.get("moe.offset", 0)
    assert isinstance(every, int)
    assert isinstance(offset, int)
    place = "" if every == 1 else f" every {every}" + (f" offset {offset}" if offset != every - 1 else "")
    return f" moe{router}{place} top{facts['moe.top_k']}/{facts['moe.n_experts']}"


def _binary(number: int) -> str:
    return f"{number // 1024}Ki" if number % 1024 == 0 else str(number)


def _number(value: Fact) -> str:
    """The shortest decimal that is exactly this float's: 1e-6, 5e5, 0.02."""
    digits = Decimal(repr(value)).normalize()
    sign, mantissa, exponent = digits.as_tuple()
    assert not sign
    assert isinstance(exponent, int)
    figures = "".join(map(str, mantissa))
    power = exponent + len(figures) - 1
    scientific = f"{figures[0]}{'.' + figures[1:] if figures[1:] else ''}e{power}"
    return min(scientific, f"{digits:f}", key=len)
