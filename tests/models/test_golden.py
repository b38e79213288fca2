"""The generated Jamba as it is read: model.py against a committed golden."""

from archc import compiler
from archc.diagnostics import Source
from tests.goldens.golden import check

from .cases import SPECS


def test_model_py_of_jamba() -> None:
    text = next(path for path in SPECS if path.stem == "jamba_v0_1").read_text(encoding="utf-8")
    check("jamba_v0_1/model.py", compiler.build(compiler.load(Source("jamba_v0_1.arch", text)))["model.py"])
