"""The rules of the language one by one, and that whatever is written is either a model or a diagnostic."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from archc.compiler import load
from archc.diagnostics import Diagnostic, DiagnosticError, Source, render
from archc.ir.graph import Graph, Layer, counts, shared_modules, unrolled
from archc.ir.text import graph_text
from archc.ir.values import Weight
from tests.spec_texts import texts

ROOT = Path(__file__).parents[1]
HEADER = "vocab 32; d_model 16; mlp swiglu(8)\n"


def graph(text: str, header: str = HEADER, overrides: tuple[str, ...] = ()) -> Graph:
    return load(Source("test.arch", header + text), overrides).graph


def program(text: str, header: str = HEADER) -> str:
    """What the ops are, whatever it is called."""
    return re.sub(r"^layer(\d+): .*$", r"layer\1", graph_text(graph(text, header)), flags=re.MULTILINE)


def same(one: str, other: str, header: str = HEADER) -> bool:
    return program(one, header) == program(other, header)


def order(text: str, header: str = HEADER) -> list[str]:
    """Every layer, in the order in which the model runs it."""
    return [layer.text for layer in unrolled(graph(text, header).stack)]


def weights(layer: Layer) -> Iterator[tuple[str, Weight]]:
    for node in layer.graph.nodes:
        for weight in node.op.weights():
            yield ".".join(filter(None, (node.scope, weight.path))), weight


def sizes(text: str, path: str, header: str = HEADER) -> list[tuple[int, ...]]:
    """The shape of one weight in each layer that has it, in order."""
    found = []
    for layer in unrolled(graph(text, header).stack):
        found += [tuple(axis.size.value for axis in w.axes) for name, w in weights(layer) if name == path]
    return found


def findings(text: str, header: str = HEADER) -> list[Diagnostic]:
    try:
        return list(load(Source("test.arch", header + text)).warnings)
    except DiagnosticError as failure:
        found = list(failure.diagnostics)
    assert found
    return found


def mistakes(text: str, header: str = HEADER) -> list[tuple[str, str]]:
    """(code, the text that the caret points at) of every finding."""
    return [(finding.code, finding.labels[0].span.text) for finding in findings(text, header)]


def states(text: str, header: str = HEADER) -> list[int]:
    """d_state of the mamba layers, in order."""
    return [shape[1] for shape in sizes(text, "mixer.A_log", header)]


def experts(text: str, header: str = HEADER) -> list[int]:
    """Indices of the layers that are mixtures of experts."""
    return [i for i, layer in enumerate(order(text, header)) if "moe" in layer]


# --- rule 2: layers ---------------------------------------------------------------------------------


def test_a_sum_is_one_layer_of_several_sublayers_and_a_list_is_several_layers() -> None:
    assert order("block < mamba + attn mha(2) >") == ["mamba + attn + swiglu"]
    assert order("block < mamba, attn mha(2) >") == ["mamba + swiglu", "attn + swiglu"]


def test_parallel_branches_share_a_norm_and_a_residual() -> None:
    (layer,) = counts(graph("block < mamba || attn mha(2) >").stack)
    names = [name for name, _ in weights(layer)]
    assert layer.text == "mamba || attn + swiglu"
    assert "mixer_norm.weight" in names
    assert "mixer_2_norm.weight" not in names
    assert not same("block < mamba || attn mha(2) >", "block < mamba + attn mha(2) >")


def test_repeats_bind_to_the_whole_item() -> None:
    assert order("block < mamba + attn mha(2) x2 >") == ["mamba + attn + swiglu"] * 2
    assert order("block x2 < mamba x2, < attn mha(2), mamba > x2 >", "vocab 32; d_model 16; mlp none\n") == (
        ["mamba", "mamba", "attn", "mamba", "attn", "mamba"] * 2
    )


# --- rule 3: arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        "attn(gqa(4,2), window(5), bias)",
        "attn gqa(4,2) window=5 bias",
        "attn(heads=gqa(4,2), window=5, bias=true)",
        "attn(gqa(n_heads=4, n_kv_heads=2), window(5)) bias=true",
        "attn window(2+3) bias rope none gqa(4,2)",
    ],
)
def test_ways_to_say_the_same(way: str) -> None:
    assert same(f"block < {way} >", "block < attn gqa(4,2) window(5) bias >")


def test_a_bare_name_is_a_flag_a_value_or_a_setting() -> None:
    assert same("block < mamba(bias) >", "block < mamba bias=true >")
    assert same("block < mamba inner_norm=rms >", "block < mamba(inner_norm=rms(eps=1e-5)) >")
    assert states("block < mamba(d_state=d_model), mamba(d_model/2) >") == [16, 8]
    assert mistakes("block < mamba(biass) >") == [("unknown-field", "biass")]


# --- rule 4: the channel mixer ----------------------------------------------------------------------


def test_mlp_is_appended_to_layers_that_hold_none() -> None:
    assert order("block < mamba, mamba + gelu(4), relu2(4) >") == ["mamba + swiglu", "mamba + gelu", "relu2"]
    assert order("block < mamba >", "vocab 32; d_model 16; mlp none\n") == ["mamba"]
    assert order("share g = attn mha(2)\nblock < g, mamba <- g >") == ["g", "mamba <- g + swiglu"]


def test_experts_take_the_kind_and_width_of_mlp() -> None:
    assert sizes("block < mamba > moe top2/4", "mlp.experts.up_proj") == [(4, 8, 16)]
    assert sizes("block < mamba > moe(expert=swiglu(3)) top2/4", "mlp.experts.up_proj") == [(4, 3, 16)]
    assert same("block < mamba > moe top2/4", "let wide = swiglu(8)\nblock < mamba > moe(expert=wide, top2/4)")


def test_topk_behind_the_setting_mlp_is_the_mixtures() -> None:
    header = "vocab 32; d_model 16; mlp moe(expert=swiglu(8)) top2/4\n"
    assert same("block < mamba >", "block < mamba moe(expert=swiglu(8)) top2/4 >".replace(" moe", " + moe"), header)


# --- rule 5: every, offset, at ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("block x4 < mamba x2 > moe every 2 top1/2", [1, 3, 5, 7]),
        ("block x4 < mamba x2 > moe every 2 offset 0 top1/2", [0, 2, 4, 6]),
        ("block x8 < mamba > moe every 3 top1/2", [2, 5]),
        ("block x2 < mamba x3 > moe every 4 top1/2", [3]),
        ("block x2 < < mamba x3 > moe every 2 top1/2 >", [1, 4]),
        ("block x2 < mamba, mamba x2 moe every 2 top1/2 >", [2, 5]),
        ("block x3 < mamba > moe every 2 top1/2\nblock x3 < mamba > moe every 2 top1/2", [1, 4]),
        ("block x8 < mamba > moe at [0, 5..6] top1/2", [0, 5, 6]),
        ("block x8 < mamba > moe every 2 top1/2 mlp none at [3]", [1, 5, 7]),
        ("block x4 < mamba x7, attn gqa(4,2) > moe every 2 top2/16", list(range(1, 32, 2))),
    ],
)
def test_every_counts_the_layers_of_its_bracket(text: str, expected: list[int]) -> None:
    assert experts(text) == expected


def test_every_serves_any_field() -> None:
    assert states("block x6 < mamba > d_state=4 every 2") == [16, 4] * 3
    assert states("block x4 < mamba > d_state=4 every 2 d_state=5 at [1]") == [16, 5, 16, 4]


def test_a_thousand_million_layers_stay_rolled() -> None:
    started = time.perf_counter()
    times = list(counts(graph("block x1000000000 < mamba > moe every 3 top1/2").stack).values())
    assert sorted(times) == [333_333_333, 666_666_667]
    assert time.perf_counter() - started < 2


# --- rule 6: priority -------------------------------------------------------------------------------


def test_priority() -> None:
    every = "let m = mamba(d_state=3)\nblock < < mamba, mamba d_state=2, m, m d_state=7 > d_state=4, mamba > d_state=5"
    assert states(every) == [4, 2, 3, 7, 5]
    assert states("block < mamba >") == [16]
    assert states("block x2 < mamba > d_state=4 d_state=5 every 2") == [4, 5]
    assert mistakes("block < mamba > d_state=4 d_state=5") == [("suffix-without-effect", "d_state=4")]


def test_the_nearest_channel_mixer_wins_and_the_layers_own_over_all() -> None:
    text = "block < < mamba, mamba + gelu(4) > relu(4), mamba > moe top1/2"
    assert order(text) == ["mamba + relu", "mamba + gelu", "mamba + moe"]


def test_own_words_win_over_a_suffix_however_they_are_said() -> None:
    for own in ("gqa(4,2)", "heads=gqa(4,2)", "mha(4)"):
        assert mistakes(f"block < attn {own}, mamba > mqa(8)") == [("suffix-without-effect", "mqa(8)")]
    assert mistakes("block < mamba(8) > d_state=4") == [("suffix-without-effect", "d_state=4")]


def test_a_composite_value_is_replaced_whole() -> None:
    text = "let a = attn(gqa(4,2), rope(theta=50, dims=2))\nblock < a rope(theta=60) >"
    assert same(text, "block < attn gqa(4,2) rope(theta=60) >")


def test_a_word_beside_a_composite_layer_belongs_to_its_one_owner() -> None:
    pair = "let pair = mamba + attn gqa(4,2)\n"
    assert same(pair + "block < pair d_state=3 window(5) >", "block < mamba d_state=3 + attn gqa(4,2) window(5) >")
    assert same(pair + "block < pair(d_state=3, window(5)) >", pair + "block < pair d_state=3 window(5) >")
    assert mistakes(pair + "block < pair bias >") == [("ambiguous-override", "bias")]


def test_a_setting_from_outside_wins() -> None:
    assert graph("block < mamba >", overrides=("d_model=32",)).settings.d_model.size.value == 32


# --- rule 7: let ------------------------------------------------------------------------------------


def test_a_let_shadows_a_kind_once_and_sees_earlier_names_only() -> None:
    assert states("let mamba = mamba(d_state=4)\nlet m = mamba(d_conv=3)\nblock < mamba, m >") == [4, 4]
    assert mistakes("let a = b\nlet b = mamba\nblock < a, b >") == [("unknown-layer", "b")]
    assert mistakes("let a = a\nblock < a, mamba >") == [("unknown-layer", "a")]
    assert mistakes("let g = < mamba, g >\nblock < g >") == [("unknown-layer", "g")]
    assert mistakes("let a = moe(expert=a, top1/2)\nblock < mamba > a") == [("wrong-value", "a")]


def test_what_a_let_says_does_not_change_with_later_names() -> None:
    before = "let m = moe(expert=swiglu(3), top1/2)\nlet swiglu = swiglu(5, bias)\n"
    assert same(before + "block < mamba + m >", "block < mamba + moe(expert=swiglu(3)) top1/2 >")
    groups = "let g = < mamba >\nlet mamba = mamba(d_state=3)\nblock < g, mamba >"
    assert states(groups) == [16, 3]


def test_each_use_of_a_let_begins_its_positional_values_anew() -> None:
    text = "let f = swiglu(4)\nblock < mamba + f(6) >"
    assert same(text, "block < mamba + swiglu(6) >")
    assert same("let f = swiglu(4)\nblock < mamba > f(6)", "block < mamba + swiglu(6) >")
    text = "let f = swiglu(4)\nblock < mamba > moe(expert=f(6)) top1/2"
    assert same(text, "block < mamba > moe(expert=swiglu(6)) top1/2")


def test_a_let_may_name_any_layer_or_a_group() -> None:
    assert order("let p = mamba || attn mha(2)\nlet s = p + gelu(3)\nlet g = < s, p > x2\nblock < g x2 >") == (
        ["mamba || attn + gelu", "mamba || attn + swiglu"] * 4
    )


def test_settings_are_free_of_order() -> None:
    assert same("block < mamba >", "block < mamba >", "mlp wide; vocab 2*d_model; d_model 16; let wide = swiglu(8)\n")


# --- rule 8: share ----------------------------------------------------------------------------------


def copies(text: str) -> list[int]:
    """Which copy of its shared module each layer uses that uses one."""
    found = []
    for layer in unrolled(graph(text).stack):
        found += [scope.shared.copy for scope in layer.scopes if scope.shared]
    return found


def test_copies_alternate_in_execution_order_across_repeats_and_blocks() -> None:
    share = "share g x2 = attn gqa(4,2)\n"
    assert copies(share + "block x3 < mamba, g >\nblock x2 < g >") == [0, 1, 0, 1, 0]
    assert copies(share + "block x2 < mamba <- g, < g > x2 >") == [0, 1, 0, 1, 0, 1]
    assert copies("share g = attn gqa(4,2)\nblock x3 < g >") == [0, 0, 0]


def test_a_shared_module_as_an_item_is_weight_tying() -> None:
    text = "share g = attn gqa(4,2) + gelu(3)\nblock x2 < mamba, g >"
    assert order(text) == ["mamba + swiglu", "g"] * 2
    assert [stored for stored, _ in shared_modules(graph(text)).values()] == [1]
    assert mistakes("share g x2 = attn gqa(4,2)\nblock < g >") == [("unused-copies", "x2")]
    assert mistakes("share g = attn gqa(4,2)\nblock < mamba >") == [("unused-copies", "g")]


# --- rules 9 to 11: fields of settings, defaults, numbers ---------------------------------------------


def test_parts_take_their_defaults_from_norm() -> None:
    header = HEADER + "norm rms(eps=1e-3)\n"
    assert same("block < attn gqa(4,2) qk_norm=rms >", "block < attn gqa(4,2) qk_norm=rms(eps=1e-3) >", header)
    assert not same("block < attn gqa(4,2) qk_norm=rms >", "block < attn gqa(4,2) qk_norm=rms(eps=1e-5) >", header)


def test_defaults() -> None:
    plain = "block < attn gqa(4,2), mamba >"
    said = "norm rms(eps=1e-5)\ntied false\n" + (
        "block < attn gqa(4,2) rope none bias=false out_bias=false window none d_head=4,"
        " mamba(d_state=16, d_conv=4, expand=2, dt_rank=ceil(d_model/16), inner_norm=none) >"
    )
    assert same(plain, said)


def test_numbers_are_exact() -> None:
    assert states("block < mamba(d_state=1.5*2), mamba(d_state=4Ki/1024), mamba(d_state=3e1/10) >") == [3, 4, 3]
    assert mistakes("block < mamba(d_state=10/3) >") == [("not-an-integer", "10/3")]
    assert mistakes("context 256k\nblock < mamba >") == [("decimal-unit", "256k")]
    assert not mistakes("context 256Ki\nblock < mamba >")


# --- diagnostics ------------------------------------------------------------------------------------


def test_all_mistakes_of_a_file_in_one_run_and_each_once() -> None:
    text = """model class
vocab 32
vocb 5
d_model 16
norm swiglu(3)
mlp swiglu(8)
let m = mamba(d_stat=4, d_convv=3)
let n = mmaba
let swa = attn(window(5))
block x32 < m, m x4, n, swa, attn(gqa(4,3), window(0)), mamba foo bar=2 > moe every 2 offset 2 top2/4 mooe
block x2 < mamba > d_state=10/3
"""
    assert mistakes(text, "") == [
        ("reserved-name", "class"),
        ("unknown-setting", "vocb"),
        ("wrong-value", "swiglu"),
        ("unknown-field", "d_stat"),
        ("unknown-field", "d_convv"),
        ("unknown-layer", "mmaba"),
        ("missing-field", "swa"),
        ("too-small", "0"),
        ("unknown-field", "foo"),
        ("unknown-field", "bar"),
        ("offset-outside", "2"),
        ("unknown-field", "mooe"),
        ("not-an-integer", "10/3"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vocabb 32; d_model 16; mlp none; block < mamba >", [("unknown-setting", "vocabb")]),
        ("vocab 32; d_model 0; mlp swiglu(d_model*4); block < mamba d_state=d_model >", [("too-small", "0")]),
        ("vocab 32; d_model 16; mlp swigl(8); block < mamba > moe top1/2", [("wrong-value", "swigl")]),
        ("vocab 32; d_model 16; mlp swiglu(8); let a = mamba(x=1); block x32 < a, a, a >", [("unknown-field", "x")]),
        ("vocab 32; d_model 16; mlp swiglu(8); block < attn gqa(32,8,4) >", [("wrong-arguments", "4")]),
        ("vocab 32; d_model 16; mlp swiglu(8); let g = < nope >; block x4 < g, g >", [("unknown-layer", "nope")]),
        ("vocab 32; d_model 16; mlp swiglu(8); share g = nope; block < mamba <- g, g >", [("unknown-layer", "nope")]),
        ("vocab 32; d_model 16; mlp swiglu(8); let a = attn; block x9 < a, a, a >", [("missing-field", "a")]),
    ],
)
def test_one_mistake_is_one_finding(text: str, expected: list[tuple[str, str]]) -> None:
    assert mistakes(text.replace("; ", "\n"), "") == expected


def test_overrides_are_shown_where_they_were_said() -> None:
    with pytest.raises(DiagnosticError) as found:
        load(Source("test.arch", HEADER + "block < mamba >"), ("d_model=1.5",))
    assert [render(f, colour=False).split("\n")[1] for f in found.value.diagnostics] == [" --> --set:1:9"]


COMPLETE = {"vocab": "vocab 32000", "d_model": "d_model 4096", "mlp": "mlp swiglu(1024)"}


def completed(text: str) -> str:
    """A page's example with what it leaves out."""
    missing = [line for name, line in COMPLETE.items() if not re.search(rf"^n?_?{name} ", text, re.MULTILINE)]
    return "\n".join([*missing, text, "" if "block" in text else "block < mamba >"])


SEMANTIC = sorted(
    path.stem
    for path in (ROOT / "archc" / "diagnostics" / "explain").glob("*.md")
    if any(
        f'"{path.stem}"' in source.read_text("utf-8")
        for part in ("elaborate", "layers")
        for source in (ROOT / "archc" / part).glob("*.py")
    )
)


@pytest.mark.parametrize("code", SEMANTIC)
def test_the_examples_of_a_page_are_wrong_and_right(code: str) -> None:
    page = (ROOT / "archc" / "diagnostics" / "explain" / f"{code}.md").read_text("utf-8")
    wrong, right = re.findall(r"```arch\n(.+?)\n```", page, re.DOTALL)
    whole = code in ("missing-block", "missing-setting")
    assert not findings(right if whole else completed(right), "")
    if code != "nesting-too-deep":
        assert code in {finding.code for finding in findings(wrong if whole else completed(wrong), "")}


# --- anything ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts())
def test_any_text_is_a_model_or_a_diagnostic(text: str) -> None:
    started = time.process_time()
    for finding in findings(text, ""):
        json.dumps(render(finding, colour=False))
    assert time.process_time() - started < 2


ENDLESS = {
    "groups in groups": "let g0 = < mamba >\n"
    + "".join(f"let g{i + 1} = < g{i} >\n" for i in range(999))
    + "block < g999 >",
    "sums of sums": "let l0 = mamba\n" + "".join(f"let l{i + 1} = l{i} + l{i}\n" for i in range(60)) + "block < l60 >",
    "groups doubled": "let g0 = < mamba >\n"
    + "".join(f"let g{i + 1} = < g{i}, g{i} >\n" for i in range(39))
    + "block < g39 >",
    "experts in experts": "block < " + "moe(top1/2, expert=" * 60 + "swiglu(3)" + ")" * 60 + " >",
    "words on words": "let l0 = mamba\n"
    + "".join(f"let l{i + 1} = l{i} d_state={i + 1}\n" for i in range(999))
    + "block < l999 >",
    "periods": "block x1000000 < mamba > d_state=2 every 9973 d_conv=3 every 9967",
    "copies": f"share g x{10**30} = attn gqa(4,2)\nblock x1000000 < g >",
    "repeats": "block x1000000000 < < mamba > x1000000000 >",
    "sizes": "block < mamba(d_state=1e20) >",
    "far layers": "block x1000000000 < mamba > d_state=3 at [0, 900000000]",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_refused_at_once(name: str) -> None:
    started = time.process_time()
    assert {code for code, _ in mistakes(ENDLESS[name])} <= {"nesting-too-deep", "too-large", "period-too-long"}
    assert time.process_time() - started < 2
