"""Zamba and Zamba2: blocks that are stored once and used many times, against transformers, and in every mode.

transformers 5.23 clamps dt of Zamba2 from below, at `time_step_min`, over whole sequences but not in single-token
decoding. The published model clamps nowhere, and so do our specs; where theirs is compared as it is, ours says
`dt_limit(time_step_min)`, and then clamps in every mode. With `tie_word_embeddings=false` transformers 5.23 shares no
block either: there the test shares them by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.models.packages import Package, Workshop

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
cases = pytest.importorskip("tests.kinds.zamba_cases")

from tests.parity.pair import backward, in_type, run  # noqa: E402 (torch and transformers are there)

VOCAB, zamba, zamba2 = cases.VOCAB, cases.zamba, cases.zamba2

EXACT = 1e-9  # float64, relative to the largest number of a tensor
B, T = 2, 13
CHUNKS = [[3, 6, 1, 3], [1] * T, [12, 1]]
DOCUMENTS = [1, 5, 2, 5]
SEEDS = 12
CASES = [pytest.param(make, seed, id=f"{make.__name__}-{seed}") for make in (zamba, zamba2) for seed in range(SEEDS)]


def same(a: Any, b: Any, what: str) -> None:
    """Equal relative to the largest number of `b`."""
    error = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30))
    assert error <= EXACT, f"{what}: max|a-b| / max|b| = {error:.2e}"


@pytest.mark.parametrize(("make", "seed"), CASES)
def test_equals_transformers(make: Callable[[int], Any], seed: int, workshop: Workshop) -> None:
    """Logits and all gradients, fp64 in both, our parameters in both; every tensor of theirs is in the table, once."""
    case = make(seed)
    ours = workshop(case.spec).make(torch.float64, seed)
    theirs = in_type(case.theirs().eval(), torch.float64)
    parameters, others = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert set(others) == set(case.table)
    with torch.no_grad():
        for name, read in case.table.items():
            assert others[name].shape == read(parameters).shape, name
            others[name].copy_(read(parameters))
    assert sum(p.numel() for p in parameters.values()) == sum(p.numel() for p in others.values())
    tokens = torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(1))
    same(run(ours, tokens), run(theirs, tokens), "logits")
    for model in (ours, theirs):
        backward(model, tokens)
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    for name, read in case.table.items():
        same(read(gradients), others[name].grad, name)


def test_the_random_cases_are_irregular() -> None:
    drawn = [zamba2(seed).drawn for seed in range(SEEDS)]
    assert {case["num_mem_blocks"] for case in drawn} == {1, 2, 3}
    assert any(case["mamba_ngroups"] > 1 and case["n_mamba_heads"] % 2 for case in drawn)
    for flag in ("use_shared_attention_adapter", "use_mem_rope", "add_bias_linear", "tie_word_embeddings", "clamped"):
        assert {case[flag] for case in drawn} == {True, False}
    assert {zamba(seed).drawn["n_mamba_heads"] for seed in range(SEEDS)} == {1, 2, 3}


def test_transformers_clamps_dt_and_the_published_model_does_not(workshop: Workshop) -> None:
    """What the clamp of theirs is worth, and that `dt_limit` is what says it."""
    case = next(case for seed in range(0, 40, 2) if (case := zamba2(seed)).drawn["time_step_min"] == 0.3)
    limit = f", dt_limit({case.drawn['time_step_min']})"
    assert limit in case.spec
    clamped = workshop(case.spec).make(torch.float64)
    free = workshop(case.spec.replace(limit, "")).make(torch.float64)
    free.load_state_dict(clamped.state_dict())
    tokens = draw_tokens()
    with torch.no_grad():
        assert (clamped(tokens) - free(tokens)).abs().max() > 1e-3
        same(stream(clamped, tokens, [1] * T), clamped(tokens), "token by token")


# --- modes -----------------------------------------------------------------------------------------


def draw_tokens() -> Any:
    return torch.randint(VOCAB, (B, T), generator=torch.Generator().manual_seed(3))


def stream(model: Any, tokens: Any, chunks: list[int], positions: Any = None) -> Any:
    """The logits of `chunks` of the tokens, one call each, from one cache."""
    cache, pieces, start = model.init_cache(batch=B, context=T), [], 0
    for length in chunks:
        now = slice(start, start + length)
        where = None if positions is None else positions[:, now]
        pieces.append(model(tokens[:, now], cache=cache, positions=where))
        start += length
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize(("make", "seed"), CASES[:4] + CASES[SEEDS : SEEDS + 6])
def test_one_function_in_every_mode(make: Callable[[int], Any], seed: int, workshop: Workshop) -> None:
    """Whole, in chunks, token by token and packed, fp64: every use of a block has a cache of its own."""
    package: Package = workshop(make(seed).spec)
    model, tokens = package.make(torch.float64, seed), draw_tokens()
    positions = torch.cat([torch.arange(length) for length in DOCUMENTS]).expand(B, T)
    with torch.no_grad():
        whole = model(tokens)
        for chunks in CHUNKS:
            same(stream(model, tokens, chunks), whole, str(chunks))
        separate = torch.cat([model(document) for document in tokens.split(DOCUMENTS, dim=1)], dim=1)
        same(model(tokens, positions=positions), separate, "packed")
        same(stream(model, tokens, CHUNKS[0], positions), separate, "packed, in chunks")
