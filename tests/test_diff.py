"""`archc diff`: structure, tensors and budgets of two specs side by side."""

from archc import compiler
from archc.diagnostics import Source
from archc.passes.workload import Workload
from archc.report.difference import Side, difference_text

BASE = "model a; vocab 64; d_model 32; mlp swiglu(64); block x4 < mamba, attn gqa(4,2) >"


def diffed(before: str, after: str) -> str:
    sides = [
        Side(name, compiler.analyse(compiler.load(Source(name, text)), Workload(256)))
        for name, text in (("a.arch", before), ("b.arch", after))
    ]
    return difference_text(*sides)


def test_equal_models_differ_in_nothing() -> None:
    assert diffed(
        BASE, BASE.replace("block x4 < mamba, attn gqa(4,2) >", "block x2 < < mamba, attn gqa(4,2) > x2 >")
    ) == ("- a.arch\n+ b.arch\n  1 x 256 tokens, bf16\n\nno difference\n")


def test_everything_that_changes_is_said() -> None:
    lines = diffed(BASE, BASE.replace("gqa(4,2)", "gqa(4,1)").replace("x4", "x5")).splitlines()
    titles = [line for line in lines if line and not line.startswith((" ", "-", "+"))]
    assert titles == ["structure", "sizes", "tensors", "budgets"]
    text = "\n".join(" ".join(line.split()) for line in lines)
    assert "- block x4 < mamba + swiglu(64), attn(gqa(4, 2)) + swiglu(64) >" in text
    assert "n_kv_heads 2 -> 1" in text
    assert "- layers.*.mixer.k_proj.weight [16, 32] x 4" in text
    assert "+ layers.*.mixer.k_proj.weight [8, 32] x 5" in text
    assert "KV per token 256 B -> 160 B -96 B -37.5%" in text
    assert "layers 8 -> 10 +2 +25%" in text


def test_what_was_not_there_has_no_share() -> None:
    text = diffed(BASE, BASE.replace("mlp swiglu(64)", "mlp moe(expert=swiglu(64)) top1/2"))
    (line,) = (line for line in text.splitlines() if line.strip().startswith("routed"))
    assert line.split()[-2:] == ["+98,304", "parameters"]
