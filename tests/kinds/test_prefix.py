"""Learned tokens in front of every document: the same as extra words of the vocabulary that each begins with."""

from __future__ import annotations

from typing import Any

import pytest

from archc import compiler
from archc.diagnostics import Source
from archc.passes.saved import saved
from archc.passes.workload import Workload
from tests.models.packages import Workshop

torch = pytest.importorskip("torch")

EXACT = 1e-10  # float64: the same sums, in blocks of other lengths
P, V, B, T = 3, 17, 2, 13
BODY = """
d_model 16
mlp swiglu(12)
norm rms(eps=1e-4)
residual(dtype=fp32)
let mamba2 = mamba2(n_heads=2, d_head=4, d_state=3, chunk=4)
block x2 < attn gqa(4,2) rope window(5), mamba(d_state=4), attn gqa(4,2), mamba2 >
"""
WITH = f"model prefixed\nvocab {V}\nprefix {P}\n{BODY}"
PLAIN = f"model plain\nvocab {V + P}\n{BODY}"


@pytest.fixture
def pair(workshop: Workshop) -> tuple[Any, Any]:
    """The model, and the plain one with the learned tokens as words V ... V + P - 1."""
    ours, plain = workshop(WITH).make(), workshop(PLAIN).make()
    weights = ours.state_dict()
    prefix = weights.pop("prefix")
    weights["embed.weight"] = torch.cat((weights["embed.weight"], prefix))
    weights["lm_head.weight"] = torch.cat((weights["lm_head.weight"], torch.zeros(P, 16, dtype=torch.float64)))
    plain.load_state_dict(weights)
    return ours, plain


def behind_words(plain: Any, tokens: Any) -> Any:
    words = torch.arange(V, V + P).expand(len(tokens), P)
    return plain(torch.cat((words, tokens), 1))[:, P:, :V]


def some_tokens() -> Any:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


def close(a: Any, b: Any) -> None:
    assert float((a - b).detach().abs().max() / b.detach().abs().max()) < EXACT


def test_they_are_words_that_every_document_begins_with(pair: tuple[Any, Any]) -> None:
    ours, plain = pair
    tokens = some_tokens()
    got, want = ours(tokens), behind_words(plain, tokens)
    close(got, want)
    weight = torch.randn_like(want)
    (got * weight).sum().backward()
    (want * weight).sum().backward()
    close(ours.prefix.grad, plain.embed.weight.grad[V:])
    close(ours.embed.weight.grad, plain.embed.weight.grad[:V])


@pytest.mark.parametrize("sizes", [[T], [1] * T, [1, 5, 7], [6, 6, 1]])
def test_chunks_equal_the_whole(pair: tuple[Any, Any], sizes: list[int]) -> None:
    ours, _ = pair
    tokens = some_tokens()
    with torch.no_grad():
        cache = ours.init_cache(B, T)
        parts = [ours(part, cache=cache) for part in tokens.split(sizes, 1)]
        close(torch.cat(parts, 1), ours(tokens))
        assert int(cache.length) == P + T


def test_packed_documents_equal_separate_ones(pair: tuple[Any, Any]) -> None:
    """Each document gets the learned tokens; rows have different numbers of documents."""
    ours, _ = pair
    tokens = some_tokens()
    lengths = [[4, 8, 1], [13]]
    positions = torch.tensor([[i for length in row for i in range(length)] for row in lengths])
    got = ours(tokens, positions=positions)
    for row, pieces in enumerate(lengths):
        parts = [ours(part[None]) for part in tokens[row].split(pieces)]
        close(got[row], torch.cat(parts, 1)[0])
    (prefix,) = torch.autograd.grad(got.square().sum(), ours.prefix)
    alone = sum(ours(part[None]).square().sum() for row in range(B) for part in tokens[row].split(lengths[row]))
    close(prefix, torch.autograd.grad(alone, ours.prefix)[0])


def test_documents_cannot_begin_behind_a_cache(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    with pytest.raises(ValueError, match="give no positions"):
        ours(some_tokens(), positions=torch.zeros(B, T, dtype=torch.int64), cache=ours.init_cache(B, T))


def test_the_analysis_counts_them(workshop: Workshop) -> None:
    """Parameters, cache, FLOPs and saved activations are those of the model, to the last one."""
    from torch.utils.flop_counter import FlopCounterMode

    package = workshop(WITH)
    workload = Workload(context=T, batch=B, dtype="fp32", kv_dtype="fp32", prefix=P)
    analysis = compiler.analyse(compiler.load(Source("spec", WITH)), workload)
    model = package.make(torch.float32)
    assert analysis.params.total == sum(parameter.numel() for parameter in model.parameters())
    assert B * analysis.state_bytes == model.init_cache(B, T).nbytes
    with FlopCounterMode(display=False) as counter:
        loss = model(some_tokens()).sum()
    assert counter.get_total_flops() == analysis.kernel_flops.total.forward
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert counter.get_total_flops() == analysis.kernel_flops.total.backward
    with torch.device("meta"):
        tokens = torch.empty(B, T, dtype=torch.int64)
        measured = package.module("saved").saved_activations(package.module().Model(), tokens, tokens)
    assert sum(measured) == saved(package.lowered, workload, "none").n_bytes
