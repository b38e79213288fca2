"""Generation: the cache changes nothing, the sampling options keep what they say, and bytes become text."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def run_folder(toy, make_model, tmp_path):
    """A run's directory with one checkpoint."""
    toy.checkpoint.save(tmp_path / "run", 3, make_model(seed=4))
    return tmp_path / "run"


@pytest.mark.parametrize("prefill", [3, 2048])
def test_greedy_with_the_cache_is_the_argmax_of_whole_passes(toy, make_model, monkeypatch, prefill):
    monkeypatch.setattr(toy.generate, "PREFILL", prefill)
    model = make_model(seed=3).double()
    prompt = torch.randint(256, (3, 7), generator=torch.Generator().manual_seed(1))
    out = toy.generate.generate(model, prompt, 20, how=toy.generate.Sampling(temperature=0))
    assert out.shape == (3, 27)
    tokens = prompt
    for _ in range(20):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], 1)
    assert torch.equal(out, tokens)


def test_generating_nothing_is_the_prompt(toy, make_model):
    prompt = torch.tensor([[1, 2]])
    assert torch.equal(toy.generate.generate(make_model(), prompt, 0), prompt)


PROBABILITIES = torch.tensor([0.05, 0.4, 0.15, 0.3, 0.1])


def drawn(toy, n=4000, **how):
    """How often each of five tokens is drawn."""
    generator = torch.Generator().manual_seed(0)
    logits = PROBABILITIES.log().expand(n, 5)
    tokens = toy.generate.sample(logits, toy.generate.Sampling(**how), generator)
    return torch.bincount(tokens, minlength=5) / n


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 1}, [1]),
        ({"top_k": 3}, [1, 2, 3]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.41}, [1, 3]),
        ({"top_p": 0.75}, [1, 2, 3]),
        ({"top_p": 0.0}, [1]),
        ({"min_p": 0.3}, [1, 2, 3]),
        ({"min_p": 1.0}, [1]),
        ({"top_k": 2, "top_p": 0.5}, [1]),  # of 0.57, 0.43
        ({"top_k": 4, "min_p": 0.5}, [1, 3]),
    ],
)
def test_filters(toy, how, kept):
    wanted = torch.zeros(5)
    wanted[kept] = PROBABILITIES[kept]
    wanted /= wanted.sum()
    assert (drawn(toy, **how) - wanted).abs().max() < 0.03  # four standard deviations of 4000 draws


def test_temperature(toy):
    assert (drawn(toy, temperature=0.5) - PROBABILITIES**2 / (PROBABILITIES**2).sum()).abs().max() < 0.03
    assert drawn(toy, temperature=0)[1] == 1
    assert drawn(toy, temperature=1e-4)[1] == 1


def test_the_seed_decides(toy, make_model):
    model, prompt = make_model(seed=4), torch.tensor([[65, 66]])
    outs = [
        toy.generate.generate(model, prompt, 12, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_bytes_come_as_whole_characters(toy):
    decoder, shown = toy.generate.Bytes(), []
    for byte in "aé€\N{GRINNING FACE}".encode() + b"\xff\xc3(\xe2\x82":
        shown.append(decoder.feed(byte))
    shown.append(decoder.end())
    assert [part for part in shown if part] == ["a", "é", "€", "\N{GRINNING FACE}", "\ufffd", "\ufffd(", "\ufffd"]
    assert decoder.feed(0xC3) + decoder.feed(300) == "\ufffd<300>"


def test_the_command(toy, run_folder, capsys, tmp_path):
    def shown(*flags):
        assert toy.generate.main(["--checkpoint", str(run_folder), "--tokens", "9", *flags]) == 0
        return capsys.readouterr().out

    ids = shown("--prompt", "1, 2 3", "--ids", "--temperature", "0").split()
    assert ids[:3] == ["1", "2", "3"]
    assert len(ids) == 12
    (tmp_path / "prompt.txt").write_bytes("x\né".encode())
    assert shown("--prompt-file", str(tmp_path / "prompt.txt")).startswith("x\né")
    several = shown("--prompt", "ab", "--batch", "2", "--seed", "3")
    assert several.startswith("--- 1 of 2\nab")
    assert "--- 2 of 2\nab" in several
    assert shown("--prompt", "ab", "--seed", "3") == shown("--prompt", "ab", "--seed", "3")
    assert toy.generate.main(["--checkpoint", str(run_folder), "--prompt", "a" * 120, "--tokens", "9"]) == 0
    assert "beyond the context of the spec, 128" in capsys.readouterr().err


def test_control_characters_do_not_reach_a_terminal(toy, capsys, monkeypatch):
    monkeypatch.setattr(toy.generate, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    toy.generate._show([65], iter([27, ord("["), 10, 9, 66]), ids=False)
    assert capsys.readouterr().out == "A\ufffd[\n\tB\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "1 x", "--ids"], "whole numbers"),
        (["--prompt", "1 256", "--ids"], "the prompt holds the id 256; the model's ids are 0 to 255"),
        (["--prompt", "-5 25", "--ids"], "the prompt holds the id -5; the model's ids are 0 to 255"),
        (["--prompt-file", "nowhere.txt"], "nowhere.txt: No such file or directory"),
        (["--prompt", "a", "--checkpoint", "nowhere"], "nowhere is not a directory"),
    ],
)
def test_errors_are_one_line(toy, run_folder, capsys, flags, message):
    assert toy.generate.main(["--checkpoint", str(run_folder), *flags]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_reader_that_leaves_is_no_traceback(toy_folder, run_folder):
    command = f"{sys.executable} -m toy_package.generate --checkpoint {run_folder} --prompt a --tokens 3000 | head -c 5"
    done = subprocess.run(command, shell=True, cwd=toy_folder, capture_output=True, timeout=60, env=dict(os.environ))
    assert len(done.stdout) == 5
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr
