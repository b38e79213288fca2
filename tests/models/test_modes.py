"""One function in every mode: whole sequences, chunks, single tokens, packed documents; fused and as written."""

import re

import pytest

from .cases import KINDS, MODELS
from .packages import Package, Workshop

torch = pytest.importorskip("torch")

# Relative to the largest number of the reference. float64 and float32 with margin for the order of a few hundred sums
# (their epsilons are 2e-16 and 1e-7): a wrong token, weight or mask gives 1e-2 and more.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
CASES = [pytest.param(name, torch.float64, id=f"{name}-fp64") for name in MODELS]
CASES += [pytest.param(name, torch.float32, id=f"{name}-fp32") for name in KINDS]

B, T = 2, 19
# Uneven; longer than a window; token by token; a single token after all.
CHUNKS = [[3, 7, 1, 8], [11, 8], [1] * T, [18, 1]]
DOCUMENTS = [1, 6, 2, 10]  # lengths; with a window of 5, some shorter and some longer


def assert_same(a, b, dtype, floor: float = 0.0) -> None:
    """`a` equals `b` relative to the largest number of `b`, or to `floor` if that is larger."""
    error = float((a - b).abs().max()) / max(float(b.abs().max()), floor)
    assert error <= TOLERANCE[dtype], f"max|a-b| / max|b| = {error:.2e}"


def draw_tokens(package: Package, length: int = T):
    vocab = package.module().VOCAB
    return torch.randint(vocab, (B, length), generator=torch.Generator().manual_seed(length))


def packed_positions():
    return torch.cat([torch.arange(length) for length in DOCUMENTS]).expand(B, T)


def stream(model, tokens, chunks, positions=None):
    """The logits of `chunks` of the tokens, one call each, from one cache."""
    cache = model.init_cache(batch=tokens.shape[0], context=tokens.shape[1])
    starts = [sum(chunks[:i]) for i in range(len(chunks))]
    with torch.no_grad():
        pieces = [
            model(
                tokens[:, start : start + length],
                cache=cache,
                positions=None if positions is None else positions[:, start : start + length],
            )
            for start, length in zip(starts, chunks, strict=True)
        ]
    assert cache.seen == tokens.shape[1]
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_whole_equals_chunks_equals_single_tokens(name: str, dtype, workshop: Workshop) -> None:
    package = workshop(MODELS[name])
    model, tokens = package.make(dtype), draw_tokens(package)
    with torch.no_grad():
        whole = model(tokens)
    assert whole.shape == (B, T, package.module().VOCAB)
    for chunks in CHUNKS:
        assert_same(stream(model, tokens, chunks), whole, dtype)


@pytest.mark.parametrize("name", MODELS)
def test_a_single_sequence_leaves_the_weights_alone(name: str, workshop: Workshop) -> None:
    """With one sequence and one token, views that are copies elsewhere are not: nothing may be written through them."""
    package = workshop(MODELS[name])
    model, tokens = package.make(torch.float64), draw_tokens(package, 5)[:1]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        whole = model(tokens)
    assert_same(stream(model, tokens, [1] * 5), whole, torch.float64)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_packed_documents_equal_separate_ones(name: str, dtype, workshop: Workshop) -> None:
    package = workshop(MODELS[name])
    model, tokens, positions = package.make(dtype), draw_tokens(package), packed_positions()
    with torch.no_grad():
        separate = torch.cat([model(document) for document in tokens.split(DOCUMENTS, dim=1)], dim=1)
        packed = model(tokens, positions=positions)
    assert_same(packed, separate, dtype)
    for chunks in CHUNKS[:2]:
        assert_same(stream(model, tokens, chunks, positions), separate, dtype)


@pytest.mark.parametrize("name", MODELS)
def test_tokens_do_not_see_later_ones_and_see_earlier_ones(name: str, workshop: Workshop) -> None:
    package = workshop(MODELS[name])
    model, tokens = package.make(), draw_tokens(package)
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % package.module().VOCAB
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert_same(after[:, :9], before[:, :9], torch.float64)  # not equal bits: experts multiply other numbers of rows
    assert (after[:, 9] - before[:, 9]).abs().max() > 1e-3


@pytest.mark.parametrize("positions", [None, packed_positions()], ids=["one document", "packed"])
@pytest.mark.parametrize("name", MODELS)
def test_fused_equals_as_written(name: str, positions, workshop: Workshop) -> None:
    """The same state dict, logits and gradients of all parameters, whatever the passes fused."""
    fused, plain = workshop(MODELS[name]), workshop(MODELS[name], fuse=False)
    model, reference = fused.make(), plain.make()
    reference.load_state_dict(model.state_dict(), strict=True)
    tokens = draw_tokens(fused)
    weight = torch.randn(B, T, fused.module().VOCAB, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one in (model, reference):
        logits = one(tokens, positions=positions)
        (logits * weight).sum().backward()
    with torch.no_grad():
        assert_same(model(tokens, positions=positions), reference(tokens, positions=positions), torch.float64)
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    # Some gradients are zero but for rounding: softmax does not see a bias of the keys, nor a window of one its query.
    floor = 1e-4 * max(float(grad.abs().max()) for grad in expected.values())
    for name, parameter in model.named_parameters():
        assert_same(parameter.grad, expected[name], torch.float64, floor)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_equal_differences(name: str, workshop: Workshop) -> None:
    """gradcheck of the whole model in float64 with respect to every parameter, along random directions."""
    package = workshop(KINDS[name])
    model, tokens = package.make(), draw_tokens(package, 7)
    positions = torch.tensor([0, 1, 2, 0, 1, 2, 3]).expand(B, 7)
    # One of the parameters of each name: those of other layers are the same function elsewhere.
    chosen = {re.sub(r"\.[0-9]+\.", ".", name): (name, p) for name, p in model.named_parameters()}
    names, parameters = zip(*chosen.values(), strict=True)

    def logits(*values):
        return torch.func.functional_call(
            model, dict(zip(names, values, strict=True)), (tokens,), {"positions": positions}
        )

    # float64 at a step of 1e-6: differences are right to about 1e-8; fast_mode projects on random directions
    assert torch.autograd.gradcheck(
        logits, parameters, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True, check_undefined_grad=False
    )
