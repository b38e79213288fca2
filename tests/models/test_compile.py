"""torch.compile takes generated models whole, forward and backward, and computes what they compute without it."""

from typing import Any

import pytest

from .cases import KINDS, SHRUNK
from .packages import Workshop

torch = pytest.importorskip("torch")

# Between them: every operation, both skeletons of layers, a window, experts, an fp32 stream, sums of sublayers.
MODELS = {name: SHRUNK[name] for name in ("jamba_tiny", "mamba_130m", "mistral_7b_v0_1", "mixtral_8x7b")}
MODELS |= {name: KINDS[name] for name in ("sums_of_three", "single_operators", "attention_biases", "s4_options")}

B, T = 2, 11
PACKED = torch.tensor([0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4]).expand(B, T)


def run(model: Any, forward: Any, tokens: Any, positions: Any) -> tuple[Any, dict[str, Any]]:
    model.zero_grad()
    logits = forward(tokens, positions=positions)
    logits.square().mean().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


CASES = [(name, PACKED) for name in MODELS] + [(name, None) for name in ("jamba_tiny", "mistral_7b_v0_1")]


@pytest.mark.parametrize(
    ("name", "positions"), CASES, ids=[f"{n}-{'one' if p is None else 'packed'}" for n, p in CASES]
)
def test_the_whole_model_compiles(name: str, positions: Any, workshop: Workshop) -> None:
    package = workshop(MODELS[name])
    model = package.make(torch.float64)
    tokens = torch.randint(package.module().VOCAB, (B, T), generator=torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, expected_grads = run(model, model, tokens, positions)
    logits, grads = run(model, compiled, tokens, positions)
    # float64, the same operations in another order of sums
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
    for parameter, grad in expected_grads.items():
        torch.testing.assert_close(
            grads[parameter], grad, rtol=1e-8, atol=1e-11, msg=lambda text, p=parameter: f"{p}: {text}"
        )
