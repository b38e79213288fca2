"""Names of a spec in the code of its package: each is refused, or means nothing there but itself."""

from __future__ import annotations

import ast
import builtins
import keyword
import sys

import pytest
import torch
from torch import nn

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.elaborate.names import MAX_NAME
from tests.models.packages import Workshop

RESERVED_WORDS = {"model", "let", "share", "block", "every", "offset", "at", "none"}
REFUSED = {"reserved-name", "let-hides"}

ATTRIBUTES = sorted(name for name in dir(nn.Module) if not name.startswith("_"))
OF_THE_PACKAGE = [
    "embed",
    "norm",
    "layers",
    "lm_head",
    "mixer",
    "mlp",
    "mixer_2",
    "mixer_norm",
    "mlp_norm",
    "init_weights",
    "init_cache",
    "no_decay",
    "keep_fp32",
    "pack",
    "packs",
    "stack",
    "layer",
    "h",
    "x",
    "z",
    "delta",
    "fed",
    "residual",
    "logits",
    "tokens",
    "positions",
    "cache",
    "states",
    "state",
    "batch",
    "context",
    "dtype",
    "device",
    "length",
    "use",
    "Model",
    "Layer",
    "LayerB",
    "Tensor",
    "Any",
    "Iterator",
    "NamedTuple",
    "Cache",
    "Packed",
    "AttentionState",
    "F",
    "torch",
    "nn",
    "NAME",
    "VOCAB",
    "CONTEXT",
    "SPEC_HASH",
    "NO_DECAY",
    "KEEP_FP32",
    "N_RESIDUAL_ADDS",
    "model_",
    "layer_b",
    "g_out",
    "g_use",
    "g_cache",
    "g_mixer",
    "tensor",
    "any",
    "iterator",
    "named_tuple",
    "packed",
    "attention_state",
    "mamba_cache",
    "layer_cache",
    "self",
    "cls",
    "count",
    "index",
    "type",
    "_",
    "__",
    "__init__",
    "__class__",
    "__dict__",
    "_modules",
    "_parameters",
]
HOSTILE = sorted({*keyword.kwlist, *keyword.softkwlist, *ATTRIBUTES, *dir(builtins), *OF_THE_PACKAGE, "a" * 10_000})
HOSTILE = [name for name in HOSTILE if name not in RESERVED_WORDS]
PLAIN = [
    "g",
    "g2",
    "g_2",
    "global_attn",
    "shared_attn",
    "mamba",
    "swiglu",
    "x4y",
    "e1",
    "camelCase",
    "q_proj",
    "match",
    "top",
]


def as_model(name: str) -> str:
    return f"model {name}\nvocab 17\nd_model 8\nmlp swiglu(4)\nblock < attn mha(2) >\n"


def as_share(name: str) -> str:
    return (
        "vocab 17\nd_model 8\nmlp swiglu(4)\n"
        f"share {name}(in=concat(h, embed), residual=none, out=linear) x2 = attn mha(2) lora(2, on=[q]) + geglu(4)\n"
        f"block x2 < attn mha(2), attn mha(2) <- {name}, {name} >\n"
    )


def as_let(name: str) -> str:
    return f"vocab 17\nd_model 8\nmlp swiglu(4)\nlet {name} = attn mha(2)\nblock < {name} >\n"


def built(text: str) -> dict[str, str] | None:
    """The package, or None if its name was refused."""
    try:
        return compiler.build(compiler.load(Source("test.arch", text)))
    except DiagnosticError as failure:
        codes = {finding.code for finding in failure.diagnostics}
    assert codes <= REFUSED
    return None


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_shared_module_hides_no_attribute_of_a_module(name: str) -> None:
    assert built(as_share(name)) is None


def check_classes(code: str) -> None:
    """No class, and no attribute of one, is defined twice; no local hides what its function needs from outside."""
    tree = ast.parse(code)
    top = [n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    top += [alias.asname or alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names]
    assert len(set(top)) == len(top)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
        local = {n.id for n in names if isinstance(n.ctx, ast.Store)} | {a.arg for a in function.args.args}
        calls = [n.func for n in ast.walk(function) if isinstance(n, ast.Call)]
        assert not local & {*top, *dir(builtins)} & {f.id for f in calls if isinstance(f, ast.Name)}
        assert not local & {"torch", "nn", "F", "math"}
        if function.name == "__init__":
            targets = [
                t.attr for n in ast.walk(function) if isinstance(n, ast.Assign) for t in n.targets if _is_self(t)
            ]
            assert len(set(targets)) == len(targets)


def _is_self(target: ast.expr) -> bool:
    return isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"


def test_hostile_names_of_shared_modules() -> None:
    accepted = [
        name for name in [*HOSTILE, *PLAIN] if (files := built(as_share(name))) and not check_classes(files["model.py"])
    ]
    assert {*PLAIN} <= {*accepted}
    assert not {*accepted} & {*keyword.kwlist, *ATTRIBUTES, *dir(builtins)}


def test_hostile_names_of_models() -> None:
    hostile = [name for name in HOSTILE if name not in ATTRIBUTES][::3]
    always = [*PLAIN, "test", "class", "import", "torch", "triton", "numpy", "json", "_", "__init__"]
    accepted = {name: files for name in [*hostile, *always] if (files := built(as_model(name)))}
    for name, files in accepted.items():
        for file, text in files.items():
            if file.endswith(".py"):
                ast.parse(text)
        (constant,) = [line for line in files["model.py"].splitlines() if line.startswith("NAME = ")]
        assert ast.literal_eval(constant.removeprefix("NAME = ")) == name
        assert name.isidentifier()
        assert not keyword.iskeyword(name)
        assert len(name) <= MAX_NAME
        assert name == "test" or name not in sys.stdlib_module_names
    assert {*PLAIN, "test"} <= {*accepted}
    assert not {"torch", "triton", "numpy", "class", "import", "_", "__init__", "json"} & {*accepted}


def test_names_of_lets_reach_no_code() -> None:
    reference = built(as_let("plain"))
    assert reference is not None
    for name in HOSTILE[::5]:
        files = built(as_let(name))
        if files is not None:
            differing = {file for file, text in files.items() if text != reference[file]}
            assert differing <= {"spec.arch", "namespace.py"}  # which holds a hash of all the others


def test_two_shared_modules_never_become_one() -> None:
    text = "vocab 17\nd_model 8\nmlp none\nshare {} = attn mha(2)\nshare {} = attn mha(4)\nblock < {}, {} >\n"
    for one, other in (("ab", "aB"), ("a_b", "AB"), ("a_b", "a__b"), ("g", "G")):
        files = built(text.format(one, other, one, other))
        if files is not None:
            check_classes(files["model.py"])


@pytest.mark.parametrize("name", PLAIN)
def test_accepted_names_work(name: str, workshop: Workshop) -> None:
    model = workshop(as_share(name)).make(torch.float32)
    assert getattr(model, name) is not None
    tokens = torch.arange(6)[None]
    assert model(tokens).isfinite().all()
