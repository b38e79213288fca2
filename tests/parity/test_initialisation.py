"""A model starts as the papers say, also one that was made on the meta device and then given memory."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.models.packages import Workshop

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402 (torch is there)

HEADER = "vocab 64; d_model 48; norm rms(eps=1e-6); mlp swiglu(96); context 64"
MAMBA = "mamba(d_state=5, dt_rank=9, inner_norm=rms)"
# Spec, its residual adds, how many weights write into the residual stream (those of all experts together are one).
SPECS = {
    "jamba": (f"{HEADER}\nblock x2 < {MAMBA} x3, attn gqa(4,2) > moe every 2 top2/4\n", 16, 16),
    "mamba": (f"{HEADER}; tied; residual(dtype=fp32)\nblock x6 < mamba(d_state=5, dt_rank=9) > mlp none\n", 6, 6),
    "llama": (f"{HEADER}\nblock x5 < attn gqa(4,2) rope >\n", 10, 10),
}
OUT = ("out_proj.weight", "o_proj.weight", "down_proj.weight", "down_proj")
NORMAL = ("in_proj.weight", "x_proj.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight",
          "up_proj.weight", "gate_proj", "up_proj", "router.weight", "embed.weight", "lm_head.weight")  # fmt: skip


@pytest.fixture(params=[(name, meta) for name in SPECS for meta in (False, True)], ids=str)
def started(request: pytest.FixtureRequest, workshop: Workshop) -> tuple[dict[str, Tensor], int, int]:
    """The parameters of a new model, its residual adds, and the weights that write into the stream."""
    name, meta = request.param
    spec, n_adds, n_out = SPECS[name]
    make: Any = workshop(spec).module().Model
    torch.manual_seed(0)
    if meta:
        with torch.device("meta"):
            model = make()
        model.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(torch.nan)  # whatever is not initialised shows
        model.init_weights()
    else:
        model = make()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}, n_adds, n_out


def ending(parameters: dict[str, Tensor], *suffixes: str) -> list[Tensor]:
    return [tensor for name, tensor in parameters.items() if f".{name}".endswith(tuple(f".{s}" for s in suffixes))]


def all_of(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


def test_every_parameter_has_a_rule(started) -> None:
    parameters, _, n_out = started
    assert all(bool(tensor.isfinite().all()) for tensor in parameters.values())
    constant = ending(parameters, "A_log", "D", "norm.weight")
    constant += [tensor for name, tensor in parameters.items() if name.endswith("_norm.weight")]
    drawn = ending(parameters, "dt_proj.weight", "dt_proj.bias", "conv1d.weight", "conv1d.bias")
    out, normal = ending(parameters, *OUT), ending(parameters, *NORMAL)
    assert len(out) == n_out
    assert len(constant) + len(drawn) + len(out) + len(normal) == len(parameters)


def test_constants(started) -> None:
    parameters, _, _ = started
    for A_log in ending(parameters, "A_log"):  # the same on every channel: A = -1, ..., -N
        assert torch.equal(A_log, torch.arange(1, 6, dtype=torch.float32).log().expand(96, 5))
    ones = ending(parameters, "D", "norm.weight")
    ones += [tensor for name, tensor in parameters.items() if name.endswith("_norm.weight")]
    assert all(bool((tensor == 1).all()) for tensor in ones)


def test_projections_into_the_stream_start_smaller(started) -> None:
    """N(0, 0.02), and 0.02 / sqrt(residual adds) for what is added to the stream (Mamba's and GPT-2's rule)."""
    parameters, n_adds, _ = started
    for suffixes, std in ((OUT, 0.02 / math.sqrt(n_adds)), (NORMAL, 0.02)):
        for tensor in ending(parameters, *suffixes):
            values = tensor.double()
            error = std / math.sqrt(values.numel())  # of the mean; of the deviation it is smaller by sqrt(2)
            assert abs(float(values.mean())) < 5 * error
            assert abs(float(values.std()) - std) < 5 * error / math.sqrt(2)


def test_time_steps(started) -> None:
    """softplus(bias) is log-uniform in [1e-3, 1e-1], and the weight uniform within +-dt_rank^-1/2."""
    parameters, _, _ = started
    biases, weights = ending(parameters, "dt_proj.bias"), ending(parameters, "dt_proj.weight")
    if not biases:
        return
    dt = torch.nn.functional.softplus(all_of(biases))
    assert float(dt.min()) >= 1e-3 * (1 - 1e-5)  # an fp32 bias gives dt back to 1e-6
    assert float(dt.max()) <= 1e-1 * (1 + 1e-5)
    assert distance_from_uniform(dt.log(), math.log(1e-3), math.log(1e-1)) < 1.95  # 1 in 1000 draws is further
    assert float(all_of(weights).abs().max()) <= 9**-0.5
    assert distance_from_uniform(all_of(weights), -(9**-0.5), 9**-0.5) < 1.95


def distance_from_uniform(values: Tensor, low: float, high: float) -> float:
    """The statistic of Kolmogorov and Smirnov, times sqrt(n)."""
    n = len(values)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    uniform = (values.sort().values - low) / (high - low)
    return float(torch.maximum((steps[1:] - uniform).max(), (uniform - steps[:-1]).max())) * math.sqrt(n)


def test_the_start_is_transformers_own(workshop: Workshop) -> None:
    """What has no chance in it is equal bit by bit in a Mamba that transformers makes."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(
        hidden_size=48, state_size=5, num_hidden_layers=2, vocab_size=64, time_step_rank=9, pad_token_id=None
    )
    theirs = transformers.AutoModelForCausalLM.from_config(config).backbone.layers[0].mixer
    ours = workshop(SPECS["mamba"][0]).module().Model().layers[0].mixer
    assert torch.equal(ours.A_log, theirs.A_log)
    assert torch.equal(ours.D, theirs.D)
    assert torch.all(torch.nn.functional.softplus(theirs.dt_proj.bias) < 0.1 * (1 + 1e-5)), "their bounds are ours"
