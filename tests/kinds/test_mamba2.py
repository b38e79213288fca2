"""Mamba-2 as a layer kind: against transformers, against published sizes, and what a spec may not say of it."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.ir.graph import unrolled
from archc.passes.workload import Workload
from tests.models.packages import Workshop

SPECS = Path(__file__).parents[2] / "specs"
EXACT = 1e-9  # float64, relative to the largest number of a tensor
B, T = 2, 11


def spec(*statements: str, d_model: int = 12) -> str:
    return "\n".join(["model tiny_mamba2", "vocab 29", f"d_model {d_model}", "mlp none", *statements]) + "\n"


# --- against transformers --------------------------------------------------------------------------


def shapes(seed: int) -> dict[str, Any]:
    """Sizes of a random Mamba-2: odd heads, several groups, an inner width that is no multiple of d_model."""
    draw = random.Random(seed)
    n_groups = draw.choice([1, 2, 3])
    return {
        "d_model": draw.choice([10, 12, 17]),
        "n_layers": draw.randint(1, 3),
        "n_heads": n_groups * draw.randint(2, 3),
        "d_head": draw.choice([3, 4, 8]),
        "d_state": draw.choice([2, 5, 8]),
        "n_groups": n_groups,
        "d_conv": draw.choice([2, 3, 4]),
        "chunk": draw.choice([1, 4, 16]),
        "bias": draw.random() < 0.5,
        "conv_bias": draw.random() < 0.7,
        "tied": draw.random() < 0.5,
        "fp32": draw.random() < 0.5,
        "limit": draw.choice([None, (0.3, 0.9)]),
    }


def mixer_text(one: dict[str, Any]) -> str:
    fields = [f"{name}={one[name]}" for name in ("n_heads", "d_head", "d_state", "n_groups", "d_conv", "chunk")]
    fields += ["norm=rms"] + ["bias"] * one["bias"] + ["conv_bias=false"] * (not one["conv_bias"])
    if one["limit"]:
        low, high = one["limit"]
        fields.append(f"dt_limit({low})" if high is None else f"dt_limit({low}, {high})")
    return f"mamba2({', '.join(fields)})"


def transformers_mamba2(one: dict[str, Any]) -> Any:
    transformers = pytest.importorskip("transformers")
    heads, inner = {"num_heads": one["n_heads"], "head_dim": one["d_head"]}, one["n_heads"] * one["d_head"]
    config = transformers.Mamba2Config(
        vocab_size=29,
        hidden_size=inner,  # its config insists on a whole expand; both are set to what is meant below
        expand=1,
        num_hidden_layers=one["n_layers"],
        state_size=one["d_state"],
        n_groups=one["n_groups"],
        conv_kernel=one["d_conv"],
        chunk_size=one["chunk"],
        use_bias=one["bias"],
        use_conv_bias=one["conv_bias"],
        layer_norm_epsilon=3e-5,
        residual_in_fp32=one["fp32"],
        tie_word_embeddings=one["tied"],
        time_step_limit=list(one["limit"] or (0.0, float("inf"))),
        pad_token_id=None,
        **heads,
    )
    config.__dict__.update(hidden_size=one["d_model"], expand=Fraction(inner, one["d_model"]))
    return transformers.Mamba2ForCausalLM(config)


def their_name(ours: str, backbone: str = "backbone", mlp: str = "mixer") -> str:
    """The name that transformers has for a tensor of ours."""
    ours = ours.replace("embed.", f"{backbone}.embeddings.")
    ours = ours.replace("mixer_norm.", "norm.").replace("mlp_norm.", "norm.")
    ours = ours.replace(".mlp.", f".{mlp}.")
    if ours == "norm.weight":
        return f"{backbone}.norm_f.weight"
    return f"{backbone}.{ours}" if ours.startswith("layers.") else ours


def same(a: Any, b: Any, what: str) -> None:
    """Equal relative to the largest number of `b`."""
    error = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30))
    assert error <= EXACT, f"{what}: max|a-b| / max|b| = {error:.2e}"


def compare(ours: Any, theirs: Any, name: Any) -> None:
    """Equal logits and gradients of every parameter, in float64, with our parameters in both."""
    torch = pytest.importorskip("torch")
    from tests.parity.pair import backward, in_type, run

    theirs = in_type(theirs, torch.float64)
    parameters, others = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert {name(own) for own in parameters} == set(others)
    with torch.no_grad():
        for own, parameter in parameters.items():
            others[name(own)].copy_(parameter)
    tokens = torch.randint(29, (B, T), generator=torch.Generator().manual_seed(1))
    same(run(ours, tokens), run(theirs, tokens), "logits")
    for model in (ours, theirs):
        backward(model, tokens)
    for own, parameter in parameters.items():
        same(parameter.grad, others[name(own)].grad, own)


@pytest.mark.parametrize("seed", range(14))
def test_equals_transformers(seed: int, workshop: Workshop) -> None:
    """Logits and all gradients of random tiny models, fp64. Theirs norms in groups, as published, since 5.0."""
    one = shapes(seed)
    lines = ["norm rms(eps=3e-5)", *["tied"] * one["tied"], *["residual(dtype=fp32)"] * one["fp32"]]
    text = spec(*lines, f"block x{one['n_layers']} < {mixer_text(one)} >", d_model=one["d_model"])
    torch = pytest.importorskip("torch")
    compare(workshop(text).make(torch.float64, seed), transformers_mamba2(one), their_name)


def test_the_random_shapes_are_irregular() -> None:
    drawn = [shapes(seed) for seed in range(14)]
    assert any(one["n_heads"] * one["d_head"] % one["d_model"] for one in drawn)
    assert any(one["n_heads"] % 2 and one["n_groups"] > 1 for one in drawn)
    for flag in ("bias", "conv_bias", "tied", "fp32"):
        assert {one[flag] for one in drawn} == {True, False}


@pytest.mark.parametrize("seed", range(5))
def test_single_operator_hybrids_equal_transformers(seed: int, workshop: Workshop) -> None:
    """The shape of NVIDIA's hybrid: one mixer a layer, attention without positions, exact GELU without a gate.

    transformers' NemotronH clamps dt at `time_step_min` where NVIDIA's own models do not: `dt_limit` says it here, and
    the published spec leaves it out.
    """
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    draw = random.Random(100 + seed)
    least = draw.choice([1e-30, 0.25])
    one = shapes(seed) | {"limit": (least, None), "bias": False}  # and never tied, whatever its config says
    pattern = "".join(draw.choices("M*-", k=4)) + "M"
    n_kv = draw.choice([1, 2])
    config = transformers.NemotronHConfig(
        vocab_size=29,
        hidden_size=one["d_model"],
        layers_block_type=[{"M": "linear_attention", "*": "full_attention", "-": "mlp"}[letter] for letter in pattern],
        num_attention_heads=2 * n_kv,
        num_key_value_heads=n_kv,
        head_dim=6,
        intermediate_size=19,
        mlp_hidden_act="gelu",
        ssm_state_size=one["d_state"],
        mamba_num_heads=one["n_heads"],
        mamba_head_dim=one["d_head"],
        n_groups=one["n_groups"],
        conv_kernel=one["d_conv"],
        chunk_size=one["chunk"],
        use_conv_bias=one["conv_bias"],
        layer_norm_epsilon=3e-5,
        time_step_min=least,
    )
    words = {"M": mixer_text(one), "*": f"attn gqa({2 * n_kv},{n_kv}) d_head=6", "-": "gelu(19)"}
    lines = ["norm rms(eps=3e-5)", f"block < {', '.join(words[c] for c in pattern)} >"]
    ours = workshop(spec(*lines, d_model=one["d_model"])).make(torch.float64, seed)
    compare(ours, transformers.NemotronHForCausalLM(config), lambda name: their_name(name, "model"))


# --- options of the gate and of dt -----------------------------------------------------------------


OPTIONS = {
    "norm before gate": "mamba2(n_heads=4, d_head=3, d_state=4, n_groups=2, norm_before_gate)",
    "no norm": "mamba2(n_heads=4, d_head=3, d_state=4, n_groups=2, norm=none)",
    "limits": "mamba2(n_heads=3, d_head=4, d_state=4, dt_limit(0.3, 0.9))",
    "biases": "mamba2(n_heads=3, d_head=4, d_state=4, bias, conv_bias=false, d_conv=2)",
}


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "as_written"])
@pytest.mark.parametrize("option", OPTIONS)
def test_options_equal_the_papers_steps(option: str, fuse: bool, workshop: Workshop) -> None:
    """A mixer of the package against the same steps in plain torch over its own weights, float64."""
    torch = pytest.importorskip("torch")
    import torch.nn.functional as F

    from archc.codegen.runtime import reference, reference_ssd

    package = workshop(spec(f"block < {OPTIONS[option]} >"), fuse=fuse)
    mixer = package.make().layers[0].mixer
    h = torch.randn(B, T, 12, dtype=torch.float64)
    P, N = (3, 4) if "n_groups" in OPTIONS[option] else (4, 4)
    G, inner = (2, 12) if "n_groups" in OPTIONS[option] else (1, 12)
    z, xBC, dt = F.linear(h, mixer.in_proj.weight, mixer.in_proj.bias).split([inner, inner + 2 * G * N, inner // P], -1)
    xBC, _ = reference.causal_conv1d(xBC, mixer.conv1d.weight, mixer.conv1d.bias)
    x, b, c = xBC.split([inner, G * N, G * N], -1)
    limit = (0.3, 0.9) if option == "limits" else (0.0, None)
    y, _ = reference_ssd.ssd(
        *(x.unflatten(-1, (-1, P)), dt, mixer.A_log, b.unflatten(-1, (G, N)), c.unflatten(-1, (G, N)), mixer.D),
        mixer.dt_bias,
        dt_limit=limit,
    )
    y = y.flatten(2)
    if option == "no norm":
        y = y * F.silu(z)
    else:
        before = option == "norm before gate"
        y = reference_ssd.gated_rms_norm(y, z, mixer.norm.weight, 1e-5, groups=G, norm_before_gate=before)
    want = F.linear(y, mixer.out_proj.weight, mixer.out_proj.bias)
    with torch.no_grad():
        error = (mixer(h) - want).abs().max() / want.abs().max()
    assert error < 1e-10
    assert ("norm" in dict(mixer.named_children())) == (option != "no norm")


def test_what_is_kept_in_fp32_and_does_not_decay(workshop: Workshop) -> None:
    model = workshop(spec("block < mamba2(n_heads=4, d_head=3) >")).make()
    per_head = {f"layers.0.mixer.{name}" for name in ("A_log", "D", "dt_bias")}
    assert model.keep_fp32() == per_head
    assert per_head | {"layers.0.mixer.norm.weight", "layers.0.mixer.conv1d.bias"} <= model.no_decay()


def test_the_convolution_takes_in_its_silu() -> None:
    model = compiler.load(Source("spec", spec("block < mamba2(n_heads=4, d_head=3) >")))
    (layer,) = {id(layer): layer for layer in unrolled(compiler.lower(model.graph).stack)}.values()
    names = [type(node.op).__name__ for node in layer.graph.nodes]
    assert "ConvSilu" in names
    assert "Activation" not in names


# --- head patterns ---------------------------------------------------------------------------------

# Which of x, B and C each head has for itself (arXiv:2405.21060, section 7.2); the others are its group's.
PATTERNS = {"multi_input": "x", "multi_contract": "C", "multi_expand": "B", "multi_head": "xBC"}


@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_share_what_they_say(pattern: str, n_groups: int, workshop: Workshop) -> None:
    """A mixer of the package, head by head and token by token in plain torch over its own weights, float64."""
    torch = pytest.importorskip("torch")
    import torch.nn.functional as F

    H, P, N = 4, 3, 5
    text = f"mamba2(n_heads={H}, d_head={P}, d_state={N}, n_groups={n_groups}, norm=none, pattern={pattern})"
    mixer = workshop(spec(f"block < {text} >")).make(torch.float64).layers[0].mixer
    copies = {part: H if part in PATTERNS[pattern] else n_groups for part in "xBC"}
    sizes = [copies["x"] * P, copies["B"] * N, copies["C"] * N]
    h = torch.randn(T, 12, dtype=torch.float64)
    z, xBC, dt = (mixer.in_proj.weight @ h.T).split([H * P, sum(sizes), H])
    padded = F.pad(xBC, (3, 0))
    xBC = F.silu(F.conv1d(padded[None], mixer.conv1d.weight, mixer.conv1d.bias, groups=sum(sizes))[0])
    parts = {part: v.unflatten(0, (copies[part], -1)) for part, v in zip("xBC", xBC.split(sizes), strict=True)}
    heads = []
    for i in range(H):
        x, B_i, C_i = (parts[part][i * copies[part] // H] for part in "xBC")  # [width, T] each
        step = F.softplus(dt[i] + mixer.dt_bias[i])
        state, ys = torch.zeros(P, N, dtype=torch.float64), []
        for t in range(T):
            state = torch.exp(-step[t] * mixer.A_log[i].exp()) * state + step[t] * torch.outer(x[:, t], B_i[:, t])
            ys.append(state @ C_i[:, t] + mixer.D[i] * x[:, t])
        heads.append(torch.stack(ys, 1))
    want = mixer.out_proj.weight @ (torch.cat(heads) * F.silu(z))
    with torch.no_grad():
        error = (mixer(h[None])[0].T - want).abs().max() / want.abs().max()
    assert error < 1e-10


# --- widths ----------------------------------------------------------------------------------------


def heads_of(text: str, d_model: int) -> int:
    (layer,) = unrolled(compiler.load(Source("spec", spec(text, d_model=d_model))).graph.stack)
    axes = {axis.name: axis.size.value for node in layer.graph.nodes for w in node.op.weights() for axis in w.axes}
    return axes["n_heads"]


@pytest.mark.parametrize(
    ("mixer", "d_model", "heads"),
    [
        ("mamba2(n_heads=5, d_head=7)", 12, 5),
        ("mamba2(5, 7, 16)", 12, 5),
        ("mamba2(expand=2)", 64, 2),
        ("mamba2(expand=2, d_head=6)", 12, 4),
        ("mamba2(expand=2, d_head=6, n_heads=4)", 12, 4),
    ],
)
def test_heads_are_given_or_follow_from_expand(mixer: str, d_model: int, heads: int) -> None:
    assert heads_of(f"block < {mixer} >", d_model) == heads


@pytest.mark.parametrize(
    ("mixer", "code", "at"),
    [
        ("mamba2", "missing-field", "mamba2"),
        ("mamba2(d_head=4)", "missing-field", "mamba2"),
        ("mamba2(expand=2, d_head=7)", "uneven-inner-width", "7"),
        ("mamba2(expand=3, d_head=6, n_heads=4)", "two-inner-widths", "3"),
        ("mamba2(n_heads=4, n_groups=3)", "uneven-groups", "3"),
        ("mamba2(expand=2, d_head=6, n_groups=3)", "uneven-groups", "3"),
        ("mamba2(n_heads=4, norm=none, norm_before_gate)", "order-without-norm", "norm_before_gate"),
        ("mamba2(n_heads=4, dt_limit(0.5, 0.1))", "empty-dt-limit", "0.1"),
        ("mamba2(n_heads=4, dt_limit(min=-1))", "empty-dt-limit", "-1"),
        ("mamba2(n_heads=4, headdim=4)", "unknown-field", "headdim"),
    ],
)
def test_what_cannot_be_is_said_where_it_was_said(mixer: str, code: str, at: str) -> None:
    with pytest.raises(DiagnosticError) as raised:
        compiler.load(Source("spec", spec(f"block < {mixer} >")))
    (found,) = raised.value.diagnostics
    assert found.code == code
    assert found.labels[0].span.text == at


# --- published models ------------------------------------------------------------------------------

# transformers' own classes on the meta device: total, SSM state, conv state of d_conv and d_conv - 1 columns.
PUBLISHED = {
    "mamba2_130m": (128989632, 4718592, 172032, 129024),
    "mamba2_370m": (368346624, 12582912, 442368, 331776),
    "mamba2_780m": (780161280, 18874368, 638976, 479232),
    "mamba2_1_3b": (1343757312, 25165824, 835584, 626688),
    "mamba2_2_7b": (2702599680, 41943040, 1376256, 1032192),
    "nvidia_mamba2_8b": (8236999680, 58720256, 2293760, 1720320),
    "nvidia_mamba2_hybrid_8b": (8654517248, 25165824, 983040, 737280),
}
MEGATRON = {"M": "mamba2", "*": "attn", "-": "gelu"}
HYBRID_8B = "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"


def published(name: str) -> compiler.Model:
    return compiler.load(Source(name, (SPECS / f"{name}.arch").read_text("utf-8")))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    analysis = compiler.analyse(published(name), Workload(256 * 1024))
    params, state = analysis.params, analysis.state.total
    assert params.total == params.active
    assert (params.total, state.ssm.elements, state.conv_wide.elements, state.conv.elements) == PUBLISHED[name]
    assert state.kv_per_token.elements == (8192 if "hybrid" in name else 0)


def test_the_hybrids_layers_are_megatrons() -> None:
    assert [layer.text for layer in unrolled(published("nvidia_mamba2_hybrid_8b").graph.stack)] == [
        MEGATRON[letter] for letter in HYBRID_8B
    ]


def test_flops_of_a_published_model() -> None:
    """Mamba-2 1.3B at 2048 tokens, term by term: projections, head, convolution and recurrence."""
    analysis = compiler.analyse(published("mamba2_1_3b"), Workload(2048))
    d, inner, heads, state, layers, vocab = 2048, 4096, 64, 128, 48, 50288
    channels = inner + 2 * state
    projections = 2 * (d * (inner + channels + heads) + inner * d)
    recurrence = heads * (64 * (5 * state + 3) + 2)
    per_token = layers * (projections + 2 * channels * 4 + recurrence) + 2 * d * vocab
    assert analysis.flops.total.model == 2048 * per_token
    products = 256 * (state + inner) * 2 + 4 * inner * state  # chunks of 256: scores, values, and the state twice
    kernels = layers * (projections + 2 * channels * 4 + products) + 2 * d * vocab
    assert analysis.kernel_flops.total.forward == 2048 * kernels
