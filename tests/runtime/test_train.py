"""Training: the loss falls, a resumed run is bitwise the run that never stopped, and failures are one message."""

import json
import math
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

SMALL = ("--batch", "4", "--length", "32", "--warmup", "3", "--device", "cpu", "--eval-every", "0")


def command(toy, text, out, *extra):
    """Run the command in this process; returns its status."""
    return toy.train.main(["--data", str(text), "--out", str(out), *SMALL, *map(str, extra)])


def losses(log: Path) -> dict[int, float]:
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def weights(toy, checkpoint: Path) -> dict[str, torch.Tensor]:
    files = sorted(checkpoint.glob("*.safetensors"))
    shards = toy.shards.Shards(files)
    return {name: shards.read(name) for name in shards.names()}


def test_the_loss_falls_below_the_unigram_entropy(toy, text, tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    assert (
        command(toy, text, tmp_path / "out", "--steps", 40, "--lr", "2e-2", "--log-json", log, "--eval-every", 20) == 0
    )
    first, *_, last = losses(log).values()
    corpus = toy.data.load([str(text)], vocab=256, length=32)
    assert last < corpus.unigram_entropy < first
    records = [json.loads(line) for line in log.read_text().splitlines()]
    held_out = [record["held_out_loss"] for record in records if "held_out_loss" in record]
    assert len(held_out) == 2
    assert held_out[1] < held_out[0]
    printed = capsys.readouterr().out
    assert "progress as plain lines: standard output is not a terminal" in printed
    assert f"unigram entropy {corpus.unigram_entropy:.4f} nats" in printed
    assert "tokens/s" in printed
    assert "left" in printed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_is_bitwise_the_one_that_never_stopped(toy, text, tmp_path, dtype):
    flags = ("--steps", 12, "--dtype", dtype, "--checkpoint-every", 5, "--keep", 0, "--grad-accumulation", 2)
    assert command(toy, text, tmp_path / "whole", *flags, "--log-json", tmp_path / "whole.jsonl") == 0
    (tmp_path / "parts").mkdir()
    shutil.copytree(tmp_path / "whole" / "step-000005", tmp_path / "parts" / "step-000005")
    assert command(toy, text, tmp_path / "parts", *flags, "--resume", "--log-json", tmp_path / "parts.jsonl") == 0
    whole, parts = losses(tmp_path / "whole.jsonl"), losses(tmp_path / "parts.jsonl")
    assert parts == {step: whole[step] for step in range(6, 13)}
    for step in ("step-000010", "step-000012"):
        before, after = weights(toy, tmp_path / "whole" / step), weights(toy, tmp_path / "parts" / step)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_interrupt_writes_a_checkpoint_and_the_run_goes_on_from_it(toy, text, tmp_path, monkeypatch, capsys):
    flags = ("--steps", 8, "--checkpoint-every", 0)
    assert command(toy, text, tmp_path / "whole", *flags) == 0
    step_of, steps = toy.optimizer.Optimizer.step, []

    def interrupted(self, lr):
        steps.append(lr)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of the third step
        return step_of(self, lr)

    with monkeypatch.context() as patch:
        patch.setattr(toy.optimizer.Optimizer, "step", interrupted)
        assert command(toy, text, tmp_path / "parts", *flags) == 130
    assert "stopped; --resume goes on from here" in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["step-000003"]
    assert command(toy, text, tmp_path / "parts", *flags, "--resume") == 0
    before, after = (weights(toy, tmp_path / run / "step-000008") for run in ("whole", "parts"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_diverged_loss_stops_the_run_and_leaves_the_checkpoint_alone(toy, text, tmp_path, monkeypatch, capsys):
    out, loss_of, calls = tmp_path / "out", toy.train.loss_of, []

    def poisoned(forward, batch):
        calls.append(batch)
        return loss_of(forward, batch) * (math.nan if len(calls) == 6 else 1.0)

    monkeypatch.setattr(toy.train, "loss_of", poisoned)
    assert command(toy, text, out, "--steps", 20, "--checkpoint-every", 4) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "the loss of step 6 is nan" in captured.err
    assert "step-000004 is untouched" in captured.err
    assert [p.name for p in out.iterdir()] == ["step-000004"]
    toy.checkpoint.load(out / "step-000004", toy.model.Model())  # whole: its hashes hold


def test_accumulation_is_a_larger_batch(toy, text, make_model):
    corpus = toy.data.load([str(text)], vocab=256, length=32)
    batch, grads = corpus.batch(0, 8), []
    for parts in (1, 4):
        model = make_model().double()
        optimizer = toy.optimizer.Optimizer(model, weight_decay=0.0, clip=0.0)
        loss = toy.train.accumulate(model, optimizer, batch, parts, torch.device("cpu"))
        grads.append((loss, [p.grad for p in model.parameters()]))
    assert grads[0][0] == pytest.approx(grads[1][0], rel=1e-12)
    for whole, summed in zip(grads[0][1], grads[1][1], strict=True):
        torch.testing.assert_close(whole, summed, rtol=1e-9, atol=1e-12)


def test_masters_follow_small_steps_that_bf16_cannot(toy, make_model):
    model = make_model(dtype=torch.bfloat16)
    assert {p.dtype for n, p in model.named_parameters() if n in model.keep_fp32()} == {torch.float32}
    optimizer = toy.optimizer.Optimizer(model, weight_decay=0.0, clip=1.0)
    before = {name: master.detach().clone() for name, master in optimizer.masters.items()}
    for _ in range(3):
        loss = model(torch.arange(32).view(2, 16)).float().logsumexp(-1).mean()
        loss.backward()
        optimizer.collect()
        assert optimizer.step(1e-6) > 0
    moved = [n for n, master in optimizer.masters.items() if not torch.equal(master, before[n])]
    assert set(moved) == set(before)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, optimizer.masters[name].to(parameter.dtype))


def test_groups(toy, make_model):
    model = make_model()
    groups = toy.optimizer.Optimizer(model, weight_decay=0.3, clip=1.0)._adamw.param_groups
    exempt = {id(p) for n, p in model.named_parameters() if n in model.no_decay()}
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {id(p) for p in groups[1]["params"]} == exempt
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_schedule(toy):
    rates = [toy.optimizer.learning_rate(s, peak=2.0, warmup=4, steps=20) for s in range(20)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.2)


def test_settings_that_changed_are_named(toy, text, tmp_path, capsys):
    assert command(toy, text, tmp_path / "out", "--steps", 2) == 0
    assert command(toy, text, tmp_path / "out", "--steps", 3, "--lr", "5e-4", "--resume") == 0
    assert "changed since the checkpoint: steps 2 -> 3, lr 0.001 -> 0.0005" in capsys.readouterr().out


def test_compiled(toy, text, tmp_path, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_(model, backend="eager"))
    assert command(toy, text, tmp_path / "out", "--steps", 2, "--length", 4, "--compile") == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length", "4096"], "--length 4096 is beyond the context of the spec, 128"),
        (["--device", "cuda:7"], "this machine has no cuda:7"),
        (["--device", "toaster"], "'toaster' is not a device"),
        (["--data", "nowhere"], "no file, directory or glob matches 'nowhere'"),
    ],
)
def test_errors_are_one_line(toy, text, tmp_path, capsys, flags, message):
    assert command(toy, text, tmp_path / "out", *flags) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [["--steps", "0"], ["--lr", "nan"], ["--batch", "x"], ["--dtype", "int8"]])
def test_wrong_arguments_are_status_2(toy, text, tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as caught:
        command(toy, text, tmp_path / "out", *flags)
    assert caught.value.code == 2
    assert "error: argument" in capsys.readouterr().err


def test_a_run_is_never_started_over_another(toy, text, tmp_path, capsys):
    assert command(toy, text, tmp_path / "out", "--steps", 1) == 0
    assert command(toy, text, tmp_path / "out", "--steps", 1) == 1
    assert "holds step-000001: give --resume to go on, or another --out" in capsys.readouterr().err


def test_a_run_that_is_complete_says_so(toy, text, tmp_path, capsys):
    assert command(toy, text, tmp_path / "out", "--steps", 1) == 0
    assert command(toy, text, tmp_path / "out", "--steps", 1, "--resume") == 0
    assert "step 1 was reached before; for more, give more --steps" in capsys.readouterr().out


def test_an_unusable_out_is_known_before_training(toy, text, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert command(toy, text, tmp_path / "out", "--steps", 1) == 1
    captured = capsys.readouterr()
    assert captured.err == f"error: {tmp_path / 'out'}: File exists\n"
    assert "step 1" not in captured.out


def test_a_dtype_cannot_change_on_the_way(toy, text, tmp_path, capsys):
    assert command(toy, text, tmp_path / "out", "--steps", 1, "--dtype", "bfloat16") == 0
    assert command(toy, text, tmp_path / "out", "--steps", 2, "--dtype", "float32", "--resume") == 1
    assert "under another --dtype" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(toy, text, tmp_path, capsys):
    """auto is CUDA in bf16; a run resumes from its fused optimizer's state and generates."""
    flags = ("--steps", 12, "--device", "auto", "--checkpoint-every", 5, "--keep", 0, "--grad-accumulation", 2)
    assert command(toy, text, tmp_path / "whole", *flags, "--log-json", tmp_path / "whole.jsonl") == 0
    assert "bfloat16 on cuda" in capsys.readouterr().out
    (tmp_path / "parts").mkdir()
    shutil.copytree(tmp_path / "whole" / "step-000005", tmp_path / "parts" / "step-000005")
    assert command(toy, text, tmp_path / "parts", *flags, "--resume", "--log-json", tmp_path / "parts.jsonl") == 0
    whole, parts = losses(tmp_path / "whole.jsonl"), losses(tmp_path / "parts.jsonl")
    for step, loss in parts.items():
        assert loss == pytest.approx(whole[step], rel=1e-2)  # bf16, and sums whose order a GPU does not promise
    assert toy.generate.main(["--checkpoint", str(tmp_path / "parts"), "--prompt", "the", "--tokens", "9"]) == 0
    assert "\nthe" in capsys.readouterr().out


def test_on_a_terminal_there_is_a_bar(toy_folder, text, tmp_path):
    """The command as a person runs it, on a pseudo-terminal."""
    arguments = ["--data", str(text), "--out", str(tmp_path / "out"), *SMALL, "--steps", "5"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "toy_package.train", *arguments],
        cwd=toy_folder,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        try:
            while part := os.read(ours, 4096):
                shown.extend(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(60) == 0
    reader.join(10)
    os.close(ours)
    text_shown = shown.decode()
    assert "step 5/5" in text_shown
    assert "tokens/s" in text_shown
    assert "\x1b[" in text_shown
    assert "Traceback" not in text_shown
