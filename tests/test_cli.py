"""The command line: what it says, what it writes, and how it exits. Bad input never gives a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from archc.cli.folder import write_package
from archc.cli.manifest import MANIFEST
from archc.diagnostics import DiagnosticError
from tests.commands import Run

ROOT = Path(__file__).parents[1]
JAMBA = str(ROOT / "specs" / "jamba_v0_1.arch")
TINY = str(ROOT / "specs" / "jamba_tiny.arch")
ONE_LINER = "mlp swiglu(14336); block x4 < mamba x7, attn gqa(32,8) > moe every 2 top2/16"
SMALL = "vocab 8; d_model 8; context 16; mlp none; block x2 < mamba >"


# --- analyze, check, and the small ones ------------------------------------------------------------


def test_analyze_prints_the_budget(archc: Run) -> None:
    ran = archc("analyze", JAMBA)
    assert (ran.status, ran.err) == (0, "")
    for number in ("51,570,323,328", "12,110,311,296", "4,294,967,296 B", "3,670,016", "688,128", "917,504"):
        assert number in ran.out
    assert all(line == line.rstrip() for line in ran.out.splitlines())


def test_the_one_liner_is_analysed(archc: Run) -> None:
    ran = archc(
        "analyze", "-e", ONE_LINER, "--set", "d_model=4096", "--set", "vocab=65536", "--json", "--context", "256Ki"
    )
    document = json.loads(ran.out)
    assert (ran.status, ran.err) == (0, "")
    assert document["model"]["name"] == "model"
    assert document["parameters"]["total"] == 51_570_315_264
    assert document["state"]["kv_bytes"] == 4 * 2**30


def test_standard_input_is_a_spec(archc: Run) -> None:
    assert archc("analyze", "-", stdin=Path(JAMBA).read_bytes()).out == archc("analyze", JAMBA).out


def test_options_of_a_workload(archc: Run) -> None:
    arguments = ("--context", "1Ki", "--batch", "3", "--dtype", "fp32", "--kv-dtype", "fp8", "--state-dtype", "bf16")
    document = json.loads(archc("analyze", TINY, "--json", *arguments).out)
    assert document["workload"] == {
        "context": 1024,
        "batch": 3,
        "dtype": "fp32",
        "weight_dtype": "fp32",
        "kv_dtype": "fp8",
        "state_dtype": "bf16",
    }
    assert json.loads(archc("analyze", TINY, "--json", "--dtype", "fp16").out)["workload"]["kv_dtype"] == "fp16"


def test_a_later_setting_wins(archc: Run) -> None:
    settings = ("--set", "vocab=300", "--set", "vocab = 400", "--set", "tied", "--set", "norm=rms(eps=1e-3)")
    model = json.loads(archc("analyze", TINY, "--json", *settings).out)["model"]
    assert (model["vocab"], model["tied"]) == (400, True)


WRONG_SETTINGS = (
    "d_modl=3",
    "d_model=x",
    "d_model",
    "=3",
    "",
    "d_model=3; vocab=4",
    "block < mamba >",
    "vocab=3 4",
    "x=(",
)


@pytest.mark.parametrize("wrong", WRONG_SETTINGS)
def test_wrong_settings_are_diagnostics(archc: Run, wrong: str) -> None:
    ran = archc("analyze", TINY, "--set", wrong)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error[")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("analyze",),
        ("analyze", TINY, "-e", SMALL),
        ("analyze", TINY, TINY),
        ("analyze", TINY, "--context", "0"),
        ("analyze", TINY, "--context", "3q"),
        ("analyze", TINY, "--batch", "0"),
        ("analyze", TINY, "--dtype", "int3"),
        ("analyze", TINY, "--nonsense"),
        ("build", TINY),
        ("build", TINY, "--print-after", "nothing"),
        ("check", "-", "-"),
        ("nonsense",),
    ],
)
def test_wrong_usage_exits_with_2(archc: Run, arguments: tuple[str, ...]) -> None:
    assert archc(*arguments).status == 2


def test_check_finds_everything_in_one_run(archc: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.arch"
    wrong.write_text("vocab 8; d_model 64; mlp none\nblock < attn gqa(32,12), attn gqa(8,3) >\n")
    ran = archc("check", TINY, str(wrong), str(tmp_path / "missing.arch"))
    assert ran.status == 1
    assert ran.out == f"{TINY}: fine\n"
    assert ran.err.count("error[uneven-heads]") == 2
    assert ran.err.count("error[unreadable-file]") == 1
    findings = json.loads(archc("check", str(wrong), "--json").out)
    assert [finding["code"] for finding in findings] == ["uneven-heads", "uneven-heads"]
    assert archc("check", JAMBA, TINY).status == 0


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"\xff\xfe", b"block <" * 5000, "\u202e".encode(), b"(" * 200_000, b"x" * 5_000_000]
)
@pytest.mark.parametrize("command", ["analyze", "check", "fmt", "build"])
def test_bad_sources_are_diagnostics(archc: Run, command: str, content: bytes, tmp_path: Path) -> None:
    if command == "fmt" and content == b"":
        return  # nothing is a spec that says nothing
    extra = ("-o", str(tmp_path / "out")) if command == "build" else ()
    ran = archc(command, "-", *extra, stdin=content)
    assert ran.status == 1
    assert ran.err.startswith("error[")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["missing.arch", ".", "a\0b", "x" * 5000])
def test_unreadable_files_are_diagnostics(archc: Run, name: str, tmp_path: Path) -> None:
    ran = archc("analyze", str(tmp_path / name))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("error[unreadable-file]")


def test_fmt_rewrites_and_checks(archc: Run, tmp_path: Path) -> None:
    spec = tmp_path / "spec.arch"
    spec.write_text("vocab    8;d_model 8\n# why\nmlp none;block < mamba >")
    assert archc("fmt", "--check", str(spec)).status == 1
    assert archc("fmt", str(spec)).out == f"reformatted {spec}\n"
    text = spec.read_text()
    assert "# why" in text
    assert archc("fmt", "--check", str(spec)).status == 0
    assert archc("fmt", "-", stdin=text.encode()).out == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spec.arch"]


def test_schema_explain_version(archc: Run) -> None:
    assert json.loads(archc("schema").out)["title"] == "AnalysisDocument"
    assert json.loads(archc("schema", "--verification").out)["title"] == "VerificationDocument"
    codes = archc("explain").out.partition("codes (")[2].split()[4:]
    assert codes
    assert archc("explain", codes[0]).status == 0
    unknown = archc("explain", codes[0] + "x")
    assert (unknown.status, f"did you mean `{codes[0]}`?" in unknown.err) == (1, True)
    assert archc("version").out.startswith("archc ")


def test_a_mistake_of_archc_is_a_diagnostic(archc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("what")

    monkeypatch.setattr("archc.compiler.load", broken)
    ran = archc("analyze", TINY)
    assert ran.status == 70
    assert ran.err.startswith("error[internal-error]: archc failed: KeyError: 'what'")


def test_a_reader_that_stops_reading_is_no_error() -> None:
    command = f"{sys.executable} -m archc analyze {JAMBA} | head -n 1"
    ran = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("jamba_v0_1")
    assert ran.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_diagnostic() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "archc", "analyze", JAMBA]
        ran = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error[system-error]")


def test_output_survives_a_terminal_that_knows_ascii_alone() -> None:
    command = [sys.executable, "-m", "archc", "analyze", JAMBA]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"51,570,323,328" in ran.stdout


# --- build -----------------------------------------------------------------------------------------


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_two_builds_are_byte_equal_and_the_second_writes_nothing(archc: Run, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert archc("build", TINY, "-o", str(one)).status == 0
    assert archc("build", TINY, "-o", str(two)).status == 0
    assert contents(one) == contents(two)
    times = {file.name: file.stat().st_mtime_ns for file in one.iterdir()}
    again = archc("build", TINY, "-o", str(one))
    assert again.out == f"{one}: {len(times)} unchanged\n"
    assert times == {file.name: file.stat().st_mtime_ns for file in one.iterdir()}


def test_build_never_overwrites_what_a_person_wrote(archc: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    archc("build", TINY, "-o", str(out))
    edited = (out / "model.py").read_bytes() + b"# mine\n"
    (out / "model.py").write_bytes(edited)
    before = contents(out)
    refused = archc("build", TINY, "-o", str(out), "--set", "vocab=300")
    assert (refused.status, contents(out)) == (4, before)
    assert refused.err.startswith("error[would-overwrite]")
    assert "model.py" in refused.err
    assert archc("build", TINY, "-o", str(out), "--set", "vocab=300", "--force").status == 0
    assert (out / "model.py.orig").read_bytes() == edited
    assert (out / "model.py").read_bytes() != edited


def test_overrides_are_part_of_the_spec_that_is_built(archc: Run, tmp_path: Path) -> None:
    arguments = ("--set", "vocab=300", "--set", "tied", "--set", "context = 2Ki")
    assert archc("build", TINY, "-o", str(tmp_path / "out"), *arguments).status == 0
    spec = tmp_path / "out" / "spec.arch"
    assert archc("analyze", str(spec), "--json").out == archc("analyze", TINY, "--json", *arguments).out


def test_print_after_shows_the_ir(archc: Run) -> None:
    before, after = (archc("build", TINY, "--print-after", name).out for name in ("elaborate", "fuse_scan"))
    assert "= selective_scan (" in before
    assert "GatedScan" not in before
    assert "= GatedScan(" in after


def test_an_unwritable_folder_is_a_diagnostic(archc: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = archc("build", TINY, "-o", str(tmp_path / "file"))
    assert (ran.status, ran.err.startswith("error[unwritable-folder]")) == (1, True)


# --- the folder of a package -----------------------------------------------------------------------

FIRST = {"a.py": "1\n", "b.py": "2\n", "c.py": "3\n"}
SECOND = {"a.py": "1\n", "b.py": "two\n", "d.py": "4\n"}


def texts(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir() if file.name != MANIFEST}


def test_files_that_are_no_longer_generated_go_if_nobody_edited_them(tmp_path: Path) -> None:
    write_package(tmp_path, FIRST, force=False)
    (tmp_path / "notes.txt").write_text("mine")
    assert write_package(tmp_path, SECOND, force=False).removed == ("c.py",)
    assert texts(tmp_path) == {**SECOND, "notes.txt": "mine"}
    (tmp_path / "d.py").write_text("mine")
    assert write_package(tmp_path, FIRST, force=False).left == ("d.py",)
    assert texts(tmp_path) == {**FIRST, "notes.txt": "mine", "d.py": "mine"}


def test_a_folder_that_is_not_a_package_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text("mine")
    (tmp_path / MANIFEST).write_text('{"name": "a web page"}')
    with pytest.raises(DiagnosticError, match=r"b\.py, manifest\.json"):
        write_package(tmp_path, FIRST, force=False)
    assert texts(tmp_path) == {"b.py": "mine"}
    write_package(tmp_path, FIRST, force=True)
    assert texts(tmp_path) == {**FIRST, "b.py.orig": "mine", "manifest.json.orig": '{"name": "a web page"}'}


def test_what_was_moved_aside_is_never_lost(tmp_path: Path) -> None:
    write_package(tmp_path, FIRST, force=False)
    for edit in ("one", "two"):
        (tmp_path / "a.py").write_text(edit)
        write_package(tmp_path, FIRST, force=True)
    assert (tmp_path / "a.py.orig").read_text() == "one"
    assert (tmp_path / "a.py.orig.2").read_text() == "two"


def test_an_edit_that_is_what_would_be_written_is_no_conflict(tmp_path: Path) -> None:
    write_package(tmp_path, FIRST, force=False)
    (tmp_path / "b.py").write_text(SECOND["b.py"])
    write_package(tmp_path, SECOND, force=False)
    assert texts(tmp_path) == SECOND


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    package = tmp_path / "package"
    write_package(package, FIRST, force=False)
    (package / "b.py").unlink()
    (package / "b.py").symlink_to(elsewhere)
    with pytest.raises(DiagnosticError):
        write_package(package, SECOND, force=False)
    write_package(package, SECOND, force=True)
    assert elsewhere.read_text() == "mine"
    assert not (package / "b.py").is_symlink()


@pytest.mark.parametrize("name", ["../out.py", "sub/file.py", "..", "", "c:x", "a\0b"])
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    package = tmp_path / "package"
    write_package(package, FIRST, force=False)
    manifest = json.loads((package / MANIFEST).read_text())
    outside = tmp_path / "out.py"
    outside.write_text("1\n")
    manifest["files"][name] = manifest["files"]["a.py"]
    (package / MANIFEST).write_text(json.dumps(manifest))
    write_package(package, SECOND, force=False)
    assert outside.exists()
    with pytest.raises(ValueError, match="name of a file"):
        write_package(package, {name: ""}, force=False)


# --- devices ---------------------------------------------------------------------------------------


def test_a_budget_that_is_exceeded_is_an_exit_code(archc: Run) -> None:
    assert archc("analyze", JAMBA, "--gpu", "h100", "--mode", "decode").status == 0
    assert archc("analyze", JAMBA, "--gpu", "h100", "--mode", "decode", "--fit").status == 3
    assert archc("analyze", JAMBA, "--gpu", "h200", "--mode", "decode", "--fit").status == 0
    assert archc("analyze", JAMBA, "--mode", "decode", "--max-memory", "80GiB").status == 3
    assert archc("analyze", JAMBA, "--mode", "decode", "--max-memory", "80GiB", "--weight-dtype", "int8").status == 0
    document = json.loads(archc("analyze", JAMBA, "--max-memory", "1GiB", "--json").out)
    assert [phase["fits"] for phase in document["sizing"]["phases"]] == [False] * 3


def test_a_plan_a_device_and_every_view(archc: Run) -> None:
    plan = ("--gpu", "h100", "--tp", "8", "--fsdp", "32", "--ep", "16", "--recompute", "full", "--optimizer", "muon")
    text = archc("analyze", JAMBA, *plan, "--ops", "--curve", "--context", "8Ki").out
    for said in (
        "of 256: tp 8, ep 16, fsdp 32",
        "largest batch at 8,192",
        "expert_linear",
        "KV cache",
        "loss, backward",
    ):
        assert said in text
    document = json.loads(archc("analyze", JAMBA, *plan, "--ops", "--curve", "--format", "json").out)
    assert document["sizing"]["plan"]["devices"] == 256
    assert [phase["phase"] for phase in document["sizing"]["phases"]] == ["train", "prefill", "decode"]
    for phase in document["sizing"]["phases"]:
        assert phase["peak_bytes"] == max(moment["bytes"] for moment in phase["moments"])
        assert phase["bounds"][-1]["name"] == "total"
        assert phase["ops"]
    assert document["sizing"]["curve"]
    assert json.loads(archc("analyze", JAMBA, "--json").out)["sizing"] is None
    markdown = archc("analyze", JAMBA, *plan, "--format", "md").out
    assert "| peak |" in markdown
    assert all(line == line.rstrip() for line in markdown.splitlines())


def test_a_device_by_its_numbers(archc: Run) -> None:
    numbers = ("--gpu-mem", "80GiB", "--bw", "3.35TB", "--flops", "989T")
    document = json.loads(archc("analyze", TINY, *numbers, "--json").out)["sizing"]
    assert document["device"]["bandwidth_bytes_per_second"] == 3_350_000_000_000
    assert document["capacity_bytes"] == 80 * 2**30
    both = json.loads(archc("analyze", TINY, "--gpu", "h100", "--gpu-mem", "40GiB", "--json").out)["sizing"]
    assert (both["device"]["memory_bytes"], both["device"]["name"]) == (40 * 2**30, "h100")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "h10"), "did you mean"),
        (("--gpu-mem", "80GiB"), "--bw and --flops"),
        (("--gpu-mem", "much"), "is not a size"),
        (("--fit",), "fit what"),
        (("--pp", "64"), "cannot make 64 stages"),
        (("--tp", "4", "--ep", "3"), "does not divide"),
        (("--tp", "0"), "Invalid value for '--tp'"),
        (("--optimizer", "lion"), "adamw"),
    ],
)
def test_wrong_devices_and_plans_are_usage(archc: Run, arguments: tuple[str, ...], said: str) -> None:
    ran = archc("analyze", JAMBA, *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert said in " ".join(ran.err.replace("│", " ").split())


def test_lint_is_asked_for(archc: Run) -> None:
    samba = str(ROOT / "specs" / "samba_1_7b.arch")
    assert archc("check", samba).out.endswith(": fine\n")
    ran = archc("check", "--lint", samba)
    assert (ran.status, "warning[uneven-tiles]" in ran.err) == (0, True)
    assert "warning[uneven-plan]" in archc("analyze", JAMBA, "--tp", "16", "--ep", "12", "--fsdp", "3").err
    assert archc("analyze", samba).err == ""


def test_conventions_are_named(archc: Run) -> None:
    llama = str(ROOT / "specs" / "llama_2_7b.arch")
    flops = json.loads(archc("analyze", llama, "--convention", "megatron", "--json").out)["flops"]
    assert (flops["convention"], flops["training_per_token"]) == ("megatron", 175_569_673_125_888 // 4096)
    assert "training, palm, per token" in archc("analyze", llama, "--convention", "palm").out


def test_figures_are_explained_and_specs_compared(archc: Run) -> None:
    assert "total 4,294,967,296 B (4 GiB)" in archc("explain", "kv", JAMBA).out
    assert archc("explain", "kv").status == 2
    assert "did you mean `params`?" in archc("explain", "parms", JAMBA).err
    ran = archc("diff", JAMBA, TINY, "--gpu", "h100")
    assert (ran.status, "active parameters" in ran.out) == (0, True)
    assert archc("diff", JAMBA).status == 2
    assert "no difference" in archc("diff", JAMBA, JAMBA).out


def test_a_finding_in_a_shared_module_stands_at_its_name(archc: Run) -> None:
    zamba = str(ROOT / "specs" / "zamba_7b_v1.arch")
    said = archc("analyze", zamba, "--gpu", "a100", "--mode", "decode").err
    assert "warning[tile-too-large]: heads of 464" in said
    assert "share g(" in said
