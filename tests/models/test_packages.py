"""Generated packages as files: clean, typed, the same from build to build, free of each other."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from archc import compiler
from archc.diagnostics import Source

from .cases import KINDS, MODELS, SHRUNK, SPECS, spec
from .packages import Workshop, write

ROOT = Path(__file__).parents[2]

# Between them every template and option of model.py, and every file of the runtime.
TYPED = {path.stem: path.read_text(encoding="utf-8") for path in SPECS if path.stem == "jamba_v0_1"}
TYPED |= {name: SHRUNK[name] for name in ("mamba_130m", "mixtral_8x7b", "s4_wt103")}
TYPED |= {name: KINDS[name] for name in ("sums_of_three", "single_operators", "mamba_two_shapes", "attention_biases")}

# Authored names are words; these are what a printer would make up.
TEMPORARY = re.compile(r"^(_?v|t|tmp|temp|val|value|out|var)_?\d+$")


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


def build(text: str) -> dict[str, str]:
    return compiler.build(compiler.load(Source("spec", text)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The typed packages side by side."""
    folder = tmp_path_factory.mktemp("typed")
    for name, text in TYPED.items():
        write(folder / name, build(text))
    return folder


def test_packages_are_linted_and_formatted(tmp_path: Path) -> None:
    """Untouched, under their own configuration; what several packages share is looked at once."""
    seen: set[tuple[str, str]] = set()
    for name, text in MODELS.items():
        for fuse in (True, False):
            files = compiler.build(compiler.load(Source(name, text)), fuse=fuse)
            new = {file: t for file, t in files.items() if file == "pyproject.toml" or (file, t) not in seen}
            seen |= set(new.items())
            write(tmp_path / (name if fuse else f"{name}_as_written"), new)
    run("ruff", "check", "--no-cache", ".", cwd=tmp_path)
    run("ruff", "format", "--no-cache", "--check", ".", cwd=tmp_path)


def test_packages_are_typed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """mypy --strict, untouched: the configuration is the package's own, which says the same in all of them."""
    pytest.importorskip("torch")
    cache = str(tmp_path_factory.getbasetemp() / "mypy_cache")
    for name in TYPED:
        config = str(Path(name) / "pyproject.toml")
        run("mypy", "--strict", "--config-file", config, "--cache-dir", cache, "-p", name, cwd=folder)


def test_two_builds_are_equal_bytes(tmp_path: Path) -> None:
    """In two processes that hash strings differently."""
    program = (
        "import hashlib, json, sys\n"
        "from pathlib import Path\n"
        "from archc import compiler\n"
        "from archc.diagnostics import Source\n"
        "texts = json.loads(Path(sys.argv[1]).read_text())\n"
        "built = {name: compiler.build(compiler.load(Source(name, text))) for name, text in texts.items()}\n"
        "hashes = {n: {f: hashlib.sha256(t.encode()).hexdigest() for f, t in b.items()} for n, b in built.items()}\n"
        "print(json.dumps([hashes, [list(b) for b in built.values()], 'torch' in sys.modules]))\n"
    )
    (tmp_path / "build_all.py").write_text(program)
    (tmp_path / "texts.json").write_text(json.dumps(TYPED | SHRUNK))
    outputs = [
        run(
            "build_all",
            "texts.json",
            cwd=tmp_path,
            PYTHONHASHSEED=seed,
            PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
        )
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0])[2] is False, "building must not import torch"


@pytest.mark.parametrize("name", MODELS)
def test_model_py_reads_well(name: str) -> None:
    """Authored names, short lines, no holes, and as long as its layers differ, not as there are layers."""
    for fuse in (True, False):
        files = compiler.build(compiler.load(Source(name, MODELS[name])), fuse=fuse)
        for file, text in files.items():
            assert not re.search(r"\{\{ |\{%|#% ", text), file
        source = files["model.py"]
        names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
        assert not {n for n in names if TEMPORARY.match(n)}
        assert max(map(len, source.splitlines())) <= 120
        assert len(source.splitlines()) < 700


def test_nothing_of_this_machine_is_in_a_package() -> None:
    for file, text in build(SHRUNK["jamba_tiny"]).items():
        assert str(ROOT) not in text, file
        assert not re.search(r"^\s*(import|from) archc", text, re.MULTILINE), file


def test_packages_live_side_by_side(workshop: Workshop) -> None:
    """Different specs, and one spec under two names: other namespaces, other classes, the same numbers as alone."""
    torch = pytest.importorskip("torch")
    text = SHRUNK["jamba_tiny"]
    packages = [workshop(text), workshop(text.replace("jamba_tiny", "twin")), workshop(KINDS["mamba"])]
    assert len({package.namespace for package in packages}) == 3
    registered = torch._C._dispatch_get_all_op_names()
    for package in packages:
        package.module()
        assert any(name.startswith(f"{package.namespace}::") for name in torch._C._dispatch_get_all_op_names())
    assert set(registered) <= set(torch._C._dispatch_get_all_op_names())

    one, twin, other = (package.make(seed=3) for package in packages)
    twin.load_state_dict(one.state_dict())
    tokens = torch.arange(10)[None]
    grads = []
    for model in (one, twin):
        logits = model(tokens)
        logits.square().sum().backward()
        grads.append([parameter.grad for parameter in model.parameters()])
    other(tokens).sum().backward()
    assert torch.equal(one(tokens), twin(tokens))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert type(one) is not type(twin)


def test_the_hash_of_a_model_is_of_its_meaning() -> None:
    """Names and spelling do not change it; every size and option does."""
    text = spec(
        "jamba",
        "norm rms(eps=1e-6)",
        "mlp swiglu(12)",
        "let m = mamba(d_state=4, d_conv=4, inner_norm=rms)",
        "block x2 < m x2, attn gqa(4,2) > moe every 2 top2/4",
    )

    def spec_hash(changed: str) -> str:
        found = re.search(r'SPEC_HASH = "([0-9a-f]{64})"', build(changed)["model.py"])
        assert found
        return found[1]

    first = spec_hash(text)
    same = [
        text.replace("model jamba", "model other"),
        text.replace("let m =", "let mixer =").replace("< m x2", "< mixer x2"),
        text.replace("m x2,", "m, m,"),
        text + "# a comment\n",
    ]
    assert {spec_hash(changed) for changed in same} == {first}
    others = [
        text.replace("d_conv=4", "d_conv=3"),
        text.replace(", inner_norm=rms", ""),
        text.replace("top2/4", "top1/4"),
        text.replace("1e-6", "1e-5"),
        text.replace("vocab 17", "vocab 18"),
        text.replace("m x2", "m x3"),
    ]
    assert text not in others
    assert len({first, *map(spec_hash, others)}) == 1 + len(others)
