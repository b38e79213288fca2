"""`archc import` and `archc export`: files in and out, and every mistake in them as a finding where it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.test_cli import Run, archc  # noqa: F401 (a fixture)

ROOT = Path(__file__).parents[1]
JAMBA = ROOT / "tests" / "hub" / "jamba_v0_1.json"


def test_a_jamba_is_three_lines(archc: Run, tmp_path: Path) -> None:  # noqa: F811
    ran = archc("import", str(JAMBA), "--name", "Jamba-v0.1")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[1] == "model jamba_v0_1"
    assert ran.out.splitlines()[-1] == "block x4 < mamba x4, attn gqa(32,8), mamba x3 > moe every 2 top2/16"
    (tmp_path / "config.json").write_bytes(JAMBA.read_bytes())
    for named, stdin in ((str(tmp_path), b""), (str(tmp_path / "config.json"), b""), ("-", JAMBA.read_bytes())):
        assert archc("import", named, "--name", "Jamba-v0.1", stdin=stdin).out == ran.out


def test_what_is_imported_is_a_spec_and_goes_back(archc: Run, tmp_path: Path) -> None:  # noqa: F811
    spec, config = tmp_path / "jamba.arch", tmp_path / "out.json"
    assert archc("import", str(JAMBA), "-o", str(spec)).out == f"wrote {spec}\n"
    assert archc("check", str(spec)).status == 0
    assert archc("fmt", "--check", str(spec)).status == 0
    assert archc("export", str(spec), "-o", str(config)).status == 0
    said, again = json.loads(JAMBA.read_text()), json.loads(config.read_text())
    assert {key: value for key, value in said.items() if again.get(key, value) != value} == {}
    assert archc("import", str(config)).out == spec.read_text()
    assert archc("export", str(spec), "--to", "hf-config").out == config.read_text()
    assert archc("export", str(spec), "-o", str(tmp_path)).out == f"wrote {tmp_path / 'config.json'}\n"


def test_json_is_for_machines(archc: Run, tmp_path: Path) -> None:  # noqa: F811
    plain = archc("import", str(JAMBA)).out
    assert json.loads(archc("import", str(JAMBA), "--json").out) == {"spec": plain, "findings": []}
    ran = archc("import", "-", "--json", stdin=b'{"model_type": "gpt2"}')
    said = json.loads(ran.out)
    assert (ran.status, ran.err, said["spec"]) == (1, "", None)
    assert [finding["code"] for finding in said["findings"]] == ["unsupported-config"]


def test_nothing_is_overwritten(archc: Run, tmp_path: Path) -> None:  # noqa: F811
    spec = tmp_path / "jamba.arch"
    spec.write_text("# mine\n")
    ran = archc("import", str(JAMBA), "-o", str(spec))
    assert (ran.status, spec.read_text()) == (4, "# mine\n")
    assert ran.err.startswith("error[would-overwrite]")
    assert archc("import", str(JAMBA), "-o", str(spec), "--force").status == 0
    assert archc("import", str(JAMBA), "-o", str(spec)).status == 0, "the same once more is no conflict"
    ran = archc("import", str(JAMBA), "-o", str(spec / "below"))
    assert (ran.status, ran.err.startswith("error[")) == (1, True)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ('{"model_type": "gpt2"}', ["model_type@1:2"]),
        ('{"vocab_size": 3}', ["model_type@1:1"]),
        ('{"model_type": "llama",\n "hidden_act": "gelu", "residual_multiplier": 2.0}',
         ["hidden_act@2:2", "residual_multiplier@2:24"]),
        ('{"model_type": "llama",\n "a": "rope_type",\n "rope_scaling": {\n  "rope_type": "yarn"}}',
         ["rope_scaling.rope_type@4:3", "a@2:2"]),
        ('{"model_type": "llama", "hidden_act": "silu",\n "hidden_act": "silu"}', ["hidden_act@2:2"]),
    ],
)  # fmt: skip
def test_findings_stand_at_their_keys(archc: Run, text: str, places: list[str]) -> None:  # noqa: F811
    ran = archc("import", "-", stdin=text.encode())
    assert (ran.status, ran.out) == (1, "")
    found = re.findall(r"error\[unsupported-config\]: `(.+?)`.*\n --> <stdin>:(\d+:\d+)", ran.err)
    assert [f"{key}@{place}" for key, place in found] == places


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"llama"', "\0", "model x"])
def test_what_is_no_json_object_is_a_finding(archc: Run, text: str) -> None:  # noqa: F811
    ran = archc("import", "-", stdin=text.encode())
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error[not-json]")


@pytest.mark.parametrize("name", ["missing.json", "a\0b", "x" * 5000, "empty"])
def test_a_file_that_is_not_there_is_a_finding(archc: Run, name: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "empty").mkdir()
    ran = archc("import", str(tmp_path / name))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error[unreadable-file]")


def test_a_model_that_no_family_computes_is_a_finding(archc: Run) -> None:  # noqa: F811
    spec = "vocab 64; d_model 32; mlp swiglu(48); logits(cap=30); block x2 < attn gqa(4,2) rope >"
    ran = archc("export", "-e", spec)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error[unsupported-model]: model is none of the families")
    assert "logits.cap: 30" in ran.err
