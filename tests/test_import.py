"""`archc import` and `archc export`: files in and out, and every mistake in them as a finding where it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands import Run

ROOT = Path(__file__).parents[1]
JAMBA = ROOT / "tests" / "hub" / "jamba_v0_1.json"


def test_a_jamba_is_three_lines(archc: Run, tmp_path: Path) -> None:
    ran = archc("import", str(JAMBA), "--name", "Jamba-v0.1")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[1] == "model jamba_v0_1"
    assert ran.out.splitlines()[-1] == "block x4 < mamba x4, attn gqa(32,8), mamba x3 > moe every 2 top2/16"
    (tmp_path / "config.json").write_bytes(JAMBA.read_bytes())
    for named, stdin in ((str(tmp_path), b""), (str(tmp_path / "config.json"), b""), ("-", JAMBA.read_bytes())):
        assert archc("import", named, "--name", "Jamba-v0.1", stdin=stdin).out == ran.out


def test_what_is_imported_is_a_spec_and_goes_back(archc: Run, tmp_path: Path) -> None:
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


def test_a_folder_of_samba_has_its_own_name(archc: Run, tmp_path: Path) -> None:
    spec = str(ROOT / "specs" / "samba_421m.arch")
    archc("export", spec, "--to", "samba", "-o", str(tmp_path / "lit_config.json"))
    assert archc("import", str(tmp_path)).out == archc("import", str(tmp_path / "lit_config.json")).out
    assert "block x6 < mamba, attn gqa(12,12) >" in archc("import", str(tmp_path)).out


def test_json_is_for_machines(archc: Run, tmp_path: Path) -> None:
    plain = archc("import", str(JAMBA)).out
    assert json.loads(archc("import", str(JAMBA), "--json").out) == {"spec": plain, "findings": []}
    ran = archc("import", "-", "--json", stdin=b'{"model_type": "gpt2"}')
    said = json.loads(ran.out)
    assert (ran.status, ran.err, said["spec"]) == (1, "", None)
    assert [finding["code"] for finding in said["findings"]] == ["unsupported-config"]


def test_nothing_is_overwritten(archc: Run, tmp_path: Path) -> None:
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
def test_findings_stand_at_their_keys(archc: Run, text: str, places: list[str]) -> None:
    ran = archc("import", "-", stdin=text.encode())
    assert (ran.status, ran.out) == (1, "")
    found = re.findall(r"error\[unsupported-config\]: `(.+?)`.*\n --> <stdin>:(\d+:\d+)", ran.err)
    assert [f"{key}@{place}" for key, place in found] == places


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"llama"', "\0", "model x"])
def test_what_is_no_json_object_is_a_finding(archc: Run, text: str) -> None:
    ran = archc("import", "-", stdin=text.encode())
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error[not-json]")


@pytest.mark.parametrize("name", ["missing.json", "a\0b", "x" * 5000, "empty"])
def test_a_file_that_is_not_there_is_a_finding(archc: Run, name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = archc("import", str(tmp_path / name))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error[unreadable-file]")


def test_a_model_that_no_family_computes_is_a_finding(archc: Run) -> None:
    spec = "vocab 64; d_model 32; mlp swiglu(48); logits(cap=30); block x2 < attn gqa(4,2) rope >"
    ran = archc("export", "-e", spec)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error[unsupported-model]: model is none of the families")
    assert "logits.cap: 30" in ran.err


# --- megatron --------------------------------------------------------------------------------------

# The arguments of NVIDIA's 8B hybrid (arXiv:2406.07887), as its training script gives them.
NVIDIA = "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"
SIZES = (
    "--hidden-size 4096 --num-attention-heads 32 --group-query-attention --num-query-groups 8 --vocab-size 256000 "
    "--untie-embeddings-and-output-weights --position-embedding-type none --disable-bias-linear "
    "--normalization RMSNorm --seq-length 4096 --max-position-embeddings 4096"
)
TRAINING = (
    "--tensor-model-parallel-size 4 --sequence-parallel --overlap-param-gather --lr-warmup-samples 100 --lr 2.5e-4 "
    "--bf16 --clip-grad 1.0 --attention-dropout 0.0 --tokenizer-type GPTSentencePieceTokenizer "
    "--spec megatron.core.models.hybrid.hybrid_layer_specs hybrid_stack_spec"
)


def test_nvidias_pattern_goes_both_ways(archc: Run, tmp_path: Path) -> None:
    spec, arguments = tmp_path / "hybrid.arch", tmp_path / "arguments.txt"
    ran = archc("import", NVIDIA, *SIZES.split(), *TRAINING.split(), "--name", "hybrid", "-o", str(spec))
    assert (ran.status, ran.err) == (0, "")
    in_tree = ROOT / "specs" / "nvidia_mamba2_hybrid_8b.arch"
    assert json.loads(archc("export", str(spec)).out) == json.loads(archc("export", str(in_tree)).out)
    assert archc("export", str(spec), "--to", "megatron", "-o", str(arguments)).status == 0
    assert archc("export", str(in_tree), "--to", "megatron").out == arguments.read_text()
    assert f"--hybrid-layer-pattern {NVIDIA}\n" in arguments.read_text()
    assert archc("import", str(arguments), "--name", "hybrid").out == spec.read_text()
    staged = NVIDIA[:28] + "|" + NVIDIA[28:]  # where a stage of a pipeline ends
    older = f"--hybrid-override-pattern={staged} \\\n {SIZES} \\\n --mamba-head-dim=64"
    assert archc("import", "-", "--name", "hybrid", stdin=older.encode()).out == spec.read_text()


@pytest.mark.parametrize(
    ("pattern", "more", "lines"),
    [
        ("M" * 56, "", ["block x56 < mamba2 >"]),
        ("M-" * 4, "--squared-relu --ffn-hidden-size 100", ["let relu2  = relu2(100)", "block x4 < mamba2, relu2 >"]),
        ("M*-" * 2, "--swiglu", ["let swiglu = swiglu(10880)", "block x2 < mamba2, attn gqa(32,8), swiglu >"]),
        ("M*", "--kv-channels 100", ["let attn   = attn(d_head=100, rope=none)"]),
        ("MM", "--make-vocab-size-divisible-by 1000 --tensor-model-parallel-size 3", ["vocab    258000"]),
        ("MM", "--padded-vocab-size 256064", ["vocab    256064"]),
        ("MM", "--mamba-num-heads 10 --mamba-num-groups 5 --mamba-state-dim 7", [
            "let mamba2 = mamba2(n_heads=10, d_head=64, d_state=7, n_groups=5, d_conv=4, norm=rms, chunk=128)"]),
        ("MM", "--fp32-residual-connection --norm-epsilon 1e-3", [
            "residual(dtype=fp32)", "norm     rms(eps=1e-3)"]),
    ],
)  # fmt: skip
def test_megatrons_defaults(archc: Run, pattern: str, more: str, lines: list[str]) -> None:
    spec = archc("import", pattern, *SIZES.split(), *more.split()).out
    assert [line for line in lines if line not in spec.splitlines()] == []
    again = archc("export", "-", "--to", "megatron", stdin=spec.encode()).out
    assert archc("import", "-", stdin=again.encode()).out == spec


def test_positions_and_biases_of_megatron(archc: Run) -> None:
    sizes = SIZES.replace("type none", "type rope --rotary-percent 0.5 --rotary-base 500000")
    spec = archc("import", "M*-", *sizes.replace("--disable-bias-linear ", "").split()).out
    assert "let attn   = attn(d_head=128, rope(theta=5e5, dims=64), bias, out_bias)" in spec.splitlines()
    assert "let gelu   = gelu(16384, bias)" in spec.splitlines()
    again = archc("export", "-", "--to", "megatron", stdin=spec.encode()).out
    assert "--disable-bias-linear" not in again
    assert archc("import", "-", stdin=again.encode()).out == spec
    assert "bias" in archc("import", "M*-", *sizes.split(), "--add-qkv-bias").out


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ([NVIDIA], ["hidden-size", "num-attention-heads", "vocab-size"]),
        (["MM", *SIZES.split(), "--qk-layernorm"], ["qk-layernorm"]),
        (["MGM", *SIZES.split()], ["hybrid-layer-pattern"]),
        (["MM/MM", *SIZES.split()], ["hybrid-layer-pattern"]),
        (["MM", *SIZES.split(), "--hidden-size", "2"], ["hidden-size"]),
        (["MM", *SIZES.split(), "--kv-channels", "1.5"], ["kv-channels"]),
        (["MM", *SIZES.split(), "--num-layers", "3"], ["num-layers"]),
        (["MM", *SIZES.split(), "--swiglu", "--squared-relu"], ["squared-relu"]),
        (["MM", *SIZES.split(), "--mamba-num-groups", "7"], ["mamba-num-groups"]),
        (["MM", *SIZES.split(), "--mamba-head-dim", "100"], ["mamba-head-dim"]),
        (["M*", *SIZES.replace("none", "rope").split(), "--rotary-percent", "0.01"], ["rotary-percent"]),
        (["MM", *SIZES.replace("none", "yarn").split()], ["position-embedding-type"]),
        (["MM", *SIZES.replace("--position-embedding-type none", "").split()], ["position-embedding-type"]),
        (["MM", *SIZES.replace("--normalization RMSNorm", "").split()], ["normalization"]),
        (["MM", *SIZES.split(), "--spec", "local"], ["spec"]),
    ],
)  # fmt: skip
def test_arguments_that_no_spec_says_are_named(archc: Run, arguments: list[str], keys: list[str]) -> None:
    ran = archc("import", *arguments)
    assert (ran.status, ran.out) == (1, "")
    assert re.findall(r"error\[unsupported-config\]: `(.+?)`", ran.err) == keys


def test_options_of_megatron_belong_to_a_pattern(archc: Run) -> None:
    assert archc("import", str(JAMBA), "--hidden-size", "3").status == 2


def test_what_is_exported_is_known_by_name(archc: Run) -> None:
    from archc.cli.hub import Format
    from archc.hub.programs import FORMATS

    assert tuple(Format) == FORMATS
    phi = str(ROOT / "specs" / "phi_3_mini.arch")
    assert json.loads(archc("export", phi).out)["model_type"] == "mistral"  # the same function
    assert json.loads(archc("export", phi, "--family", "phi3").out)["model_type"] == "phi3"
    assert archc("export", phi, "--family", "llama").status == 1
    assert "there is no family 'gpt2' for hf-config" in archc("export", phi, "--family", "gpt2").err
    assert archc("export", phi, "--to", "nothing").status == 2
