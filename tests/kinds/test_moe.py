"""Mixtures of experts as a layer kind: against transformers and the papers, in every mode; what a spec may not say."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from archc import compiler
from archc.diagnostics import DiagnosticError, Source
from archc.passes.flops import flops
from archc.passes.workload import Workload
from tests.models.packages import Workshop
from tests.oracles.moe_mamba import moe_mamba
from tests.oracles.switch import switch

torch = pytest.importorskip("torch")

CLOSE = 1e-5  # float32, relative to the largest number of a tensor
EXACT = {"rtol": 1e-9, "atol": 1e-11}  # float64: other orders of a few hundred sums
B, T = 2, 11


def spec(*statements: str, d_model: int = 12) -> str:
    return "\n".join(["model tiny_moe", "vocab 29", f"d_model {d_model}", "mlp none", *statements]) + "\n"


def same(a: Any, b: Any, what: str) -> None:
    error = float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30))
    assert error <= CLOSE, f"{what}: max|a-b| / max|b| = {error:.2e}"


def draw_tokens(length: int = T) -> Any:
    return torch.randint(29, (B, length), generator=torch.Generator().manual_seed(length))


# --- against transformers --------------------------------------------------------------------------


def sizes(seed: int) -> dict[str, int]:
    draw = random.Random(seed)
    n_experts = draw.choice([4, 6, 8])
    names = {"d": [10, 12, 17], "ff": [5, 7, 9], "shared": [3, 8, 11], "k": [1, 2, 3]}
    return {"E": n_experts, **{name: draw.choice(options) for name, options in names.items()}}


def deepseek_v3(one: dict[str, int], seed: int) -> tuple[str, Any]:
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    groups = 2 if seed % 2 else 1
    renorm, scale = seed % 3 > 0, 1 + seed
    config = DeepseekV3Config(
        hidden_size=one["d"],
        moe_intermediate_size=one["ff"],
        n_shared_experts=2,
        n_routed_experts=one["E"],
        num_experts_per_tok=min(one["k"], one["E"] // 2),
        n_group=groups,
        topk_group=1,
        norm_topk_prob=renorm,
        routed_scaling_factor=float(scale),
    )
    router = ["select_bias", f"scale={scale}"] + ["renorm"] * renorm
    router += [f"groups={groups}", "top_groups=1"] * (groups > 1)
    text = f"moe(expert=swiglu({one['ff']}), shared=swiglu({2 * one['ff']}), router=sigmoid({', '.join(router)}))"
    return f"{text} top{config.num_experts_per_tok}/{one['E']}", DeepseekV3MoE(config)


def qwen2_moe(one: dict[str, int], seed: int) -> tuple[str, Any]:
    from transformers import Qwen2MoeConfig
    from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

    config = Qwen2MoeConfig(
        hidden_size=one["d"],
        moe_intermediate_size=one["ff"],
        shared_expert_intermediate_size=one["shared"],
        num_experts=one["E"],
        num_experts_per_tok=one["k"],
        norm_topk_prob=bool(seed % 2),
    )
    router = ", router=softmax(renorm)" * (seed % 2)
    text = f"moe(expert=swiglu({one['ff']}), shared=swiglu({one['shared']}), shared_gate{router})"
    return f"{text} top{one['k']}/{one['E']}", Qwen2MoeSparseMoeBlock(config)


def mixtral(one: dict[str, int], seed: int) -> tuple[str, Any]:
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    top_k = max(2, one["k"])
    config = MixtralConfig(
        hidden_size=one["d"], intermediate_size=one["ff"], num_local_experts=one["E"], num_experts_per_tok=top_k
    )
    text = f"moe(expert=swiglu({one['ff']}), router=softmax(renorm)) top{top_k}/{one['E']}"
    return text, MixtralSparseMoeBlock(config)


def jamba(one: dict[str, int], seed: int) -> tuple[str, Any]:
    from transformers import JambaConfig
    from transformers.models.jamba.modeling_jamba import JambaSparseMoeBlock

    config = JambaConfig(
        hidden_size=one["d"], intermediate_size=one["ff"], num_experts=one["E"], num_experts_per_tok=one["k"]
    )
    return f"moe(expert=swiglu({one['ff']})) top{one['k']}/{one['E']}", JambaSparseMoeBlock(config)


def switch_transformers(one: dict[str, int], seed: int) -> tuple[str, Any]:
    """Theirs drops tokens of each sequence apart, and in evaluation too: the test is of one sequence."""
    from transformers import SwitchTransformersConfig
    from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

    config = SwitchTransformersConfig(
        d_model=one["d"], d_ff=one["ff"], num_experts=one["E"], expert_capacity=-(-B * T // one["E"]), dropout_rate=0.0
    )
    config.router_jitter_noise = 0.0
    return f"moe(expert=relu({one['ff']}), capacity=1) top1/{one['E']}", SwitchTransformersSparseMLP(config)


def our_name(theirs: str) -> str:
    """Of a tensor that both have."""
    if theirs in ("gate.weight", "router.classifier.weight"):
        return "router.weight"
    if theirs == "gate.e_score_correction_bias":
        return "select_bias"
    return theirs.replace("shared_experts.", "shared.").replace("shared_expert.", "shared.").replace("_expert_", "_")


def paired(theirs: Any) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """For each of their tensors, how it is made of ours."""
    made: dict[str, Callable[[dict[str, Any]], Any]] = {}
    for name, _ in [*theirs.named_parameters(), *theirs.named_buffers()]:
        if name.endswith("gate_up_proj"):
            made[name] = lambda ours: torch.cat([ours["experts.gate_proj"], ours["experts.up_proj"]], 1)
        elif ".expert_" in name:
            which = {"wi": "experts.up_proj", "wo": "experts.down_proj"}[name.split(".")[-2]]
            i = int(name.split(".expert_")[1].split(".")[0])
            made[name] = lambda ours, which=which, i=i: ours[which][i]
        else:
            made[name] = lambda ours, name=name: ours[our_name(name)]
    return made


@pytest.mark.parametrize("family", [deepseek_v3, qwen2_moe, mixtral, jamba, switch_transformers])
@pytest.mark.parametrize("seed", range(4))
def test_equals_transformers(family: Any, seed: int, workshop: Workshop) -> None:
    """A mixture of the package and theirs on random tiny sizes, fp32: outputs and all gradients."""
    pytest.importorskip("transformers")
    one = sizes(seed)
    words, theirs = family(one, seed)
    ours = workshop(spec(f"block < {words} >", d_model=one["d"])).make(torch.float32, seed).layers[0].mlp.train()
    theirs.train()
    own = dict(ours.named_parameters())
    made = paired(theirs)
    with torch.no_grad():
        for name, tensor in [*theirs.named_parameters(), *theirs.named_buffers()]:
            tensor.copy_(made[name](own))
    shape = (1, B * T) if family is switch_transformers else (B, T)
    h = torch.randn(*shape, one["d"], generator=torch.Generator().manual_seed(seed)).requires_grad_()
    probe = torch.randn(h.shape, generator=torch.Generator().manual_seed(9))
    y, want = ours(h), theirs(h)
    same(y, want, "output")
    leaves, others = [h, *own.values()], [h, *theirs.parameters()]
    grads = torch.autograd.grad((y * probe).sum(), leaves, allow_unused=True)
    wanted = torch.autograd.grad((want * probe).sum(), others, allow_unused=True)
    same(grads[0], wanted[0], "h")
    # without balance, nothing is said about the selection bias but the load
    by_name = dict(zip(own, grads[1:], strict=True))
    scale = max(float(g.abs().max()) for g in wanted if g is not None)
    for (name, parameter), grad in zip(theirs.named_parameters(), wanted[1:], strict=True):
        got, grad = made[name](by_name), torch.zeros_like(parameter) if grad is None else grad
        floor = max(float(grad.abs().max()), 1e-2 * scale)  # renormalised, a single choice has no gradient but rounding
        assert float((got - grad).abs().max()) <= CLOSE * floor, name


# --- against the papers ----------------------------------------------------------------------------

MOE_MAMBA = spec(
    "norm rms(eps=1e-5)",
    "let mamba = mamba(d_state=3, d_conv=4, expand=2, dt_rank=2)",
    "block x2 < mamba, moe(expert=relu(5), capacity={capacity}, balance=0.01) top1/4 >",
)


@pytest.mark.parametrize("capacity", [0.5, 1.0])
def test_moe_mamba_equals_its_paper(capacity: float, workshop: Workshop) -> None:
    """Logits and all gradients of cross-entropy plus 0.01 times the balance losses; evaluation drops nothing."""
    import torch.nn.functional as F

    model = workshop(MOE_MAMBA.format(capacity=capacity)).make().train()
    tokens = draw_tokens()
    targets = tokens.roll(-1, 1)
    own = dict(model.named_parameters())
    logits = model(tokens)
    want, losses = moe_mamba(own, tokens, 4, capacity)
    torch.testing.assert_close(logits, want, **EXACT)
    total = F.cross_entropy(want.flatten(0, 1), targets.flatten()) + 0.01 * sum(losses)
    wanted = torch.autograd.grad(total, list(own.values()))
    got = torch.autograd.grad(F.cross_entropy(logits.flatten(0, 1), targets.flatten()), list(own.values()))
    for name, grad, expected in zip(own, got, wanted, strict=True):
        torch.testing.assert_close(grad, expected, **EXACT, msg=lambda text, name=name: f"{name}: {text}")
    with torch.no_grad():
        dropless, _ = moe_mamba(own, tokens, 4, None)
        torch.testing.assert_close(model.eval()(tokens), dropless, **EXACT)
    assert (dropless - want).abs().max() > 1e-3, "nothing was dropped in training"


def test_switch_alone_equals_its_paper(workshop: Workshop) -> None:
    layer = workshop(spec("block < moe(expert=relu(5), capacity=5/4) top1/3 >")).make().layers[0].mlp.train()
    h = torch.randn(B, T, 12, dtype=torch.float64)
    weights = layer.router.weight, layer.experts["up_proj"], layer.experts["down_proj"]
    want, _ = switch(h.flatten(0, 1), *weights, capacity=1.25)
    torch.testing.assert_close(layer(h).flatten(0, 1), want, **EXACT)


# --- every mode ------------------------------------------------------------------------------------

MIXTURES = {
    "switch": "moe(expert=relu(6), capacity=1.0, balance=0.01) top1/5",
    "biases": "moe(expert=gelu(6, bias), balance=0.5, z_loss=0.1) top2/5",
    "gated shared": "moe(expert=swiglu(6), shared=geglu(7, bias), shared_gate, z_loss=0.01) top3/5",
    "sigmoid": "moe(expert=relu2(6), shared=swiglu(6), router=sigmoid(renorm, select_bias, scale=2.5, groups=3, "
    "top_groups=2), balance=0.01, capacity=1.25) top3/6",
    "scaled": "moe(expert=swiglu(6, bias), shared=relu(5, out_scale=0.5), out_scale=2, out_norm=rms) top2/3",
}


def text_of(name: str) -> str:
    return spec(f"block x2 < attn gqa(4,2) window(5) + {MIXTURES[name]} >")


def run(model: Any, forward: Any, tokens: Any) -> list[Any]:
    """Logits, and the gradients of all parameters."""
    model.zero_grad()
    logits = forward(tokens)
    logits.square().mean().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", MIXTURES)
def test_evaluation_is_one_function(name: str, workshop: Workshop) -> None:
    """Whole, in chunks, token by token: no token is dropped for another."""
    model, tokens = workshop(text_of(name)).make().eval(), draw_tokens()
    with torch.no_grad():
        whole = model(tokens)
        for chunks in ([4, 6, 1], [1] * T):
            cache = model.init_cache(batch=B, context=T)
            pieces = [model(piece, cache=cache) for piece in tokens.split(chunks, 1)]
            torch.testing.assert_close(torch.cat(pieces, 1), whole, **EXACT)


@pytest.mark.parametrize("name", MIXTURES)
def test_training_is_one_function(name: str, workshop: Workshop) -> None:
    """As written, fused, recomputed and compiled whole: logits and gradients, those of the routers' losses included."""
    from torch.utils.checkpoint import checkpoint

    model, plain = workshop(text_of(name)).make().train(), workshop(text_of(name), fuse=False).make().train()
    plain.load_state_dict(model.state_dict(), strict=True)
    tokens = draw_tokens()
    want = run(plain, plain, tokens)
    assert len(want) == 1 + len(list(model.parameters())), "a parameter without a gradient"
    torch._dynamo.reset()
    results = {
        "fused": run(model, model, tokens),
        "compiled": run(model, torch.compile(model, fullgraph=True, backend="aot_eager"), tokens),
    }
    for layer in model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    results["recomputed"] = run(model, model, tokens)
    for how, got in results.items():
        for ours, expected in zip(got, want, strict=True):
            torch.testing.assert_close(ours, expected, **EXACT, msg=lambda text, how=how: f"{how}: {text}")


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", MIXTURES)
def test_counted_flops_equal_analysed_ones(name: str, training: bool, workshop: Workshop) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    package = workshop(text_of(name))
    model = package.make(torch.float32).train(training)
    analysed = flops(package.lowered, Workload(context=T, batch=B)).total
    with FlopCounterMode(display=False) as forward:
        logits = model(draw_tokens())
    with FlopCounterMode(display=False) as backward:
        logits.square().sum().backward()
    assert (forward.get_total_flops(), backward.get_total_flops()) == (analysed.forward, analysed.backward)


@pytest.mark.parametrize("name", MIXTURES)
def test_tensors_are_the_analysed_ones(name: str, workshop: Workshop) -> None:
    package = workshop(text_of(name))
    model = package.make()
    params = compiler.analyse(package.model, Workload(T)).params
    assert sum(p.numel() for p in model.parameters()) == params.total
    routed = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    assert routed == params.routed
    moe = MIXTURES[name].rsplit("top", 1)[1]
    top_k, n_experts = map(int, moe.split("/"))
    assert params.active == params.total - routed + routed * top_k // n_experts


def test_jitter_is_for_training_and_for_the_router_alone(workshop: Workshop) -> None:
    text = spec("block < moe(expert=relu(5), router=softmax(jitter=0.3)) top2/2 >")
    layer = workshop(text).make().layers[0].mlp
    h = torch.randn(1, 4, 12, dtype=torch.float64)
    quiet = layer.eval()(h)
    assert torch.equal(layer(h), quiet)
    layer.train()
    torch.manual_seed(0)
    noisy = layer(h)
    assert not torch.allclose(noisy, quiet)
    # the experts see h itself: with both chosen, the output is a mean of what they give for h, weighted by the router
    outputs = [torch.relu(h @ up.T) @ down.T for up, down in zip(*layer.experts.values(), strict=True)]
    low, high = torch.minimum(*outputs), torch.maximum(*outputs)
    assert ((noisy >= low - 1e-12) & (noisy <= high + 1e-12)).all()


def test_what_the_selection_bias_is(workshop: Workshop) -> None:
    model = workshop(spec("block < moe(expert=relu(5), router=sigmoid(select_bias)) top2/4 >")).module().Model()
    name = "layers.0.mlp.select_bias"
    assert torch.equal(dict(model.named_parameters())[name], torch.zeros(4))
    assert name in model.keep_fp32()
    assert name in model.no_decay()


# --- training --------------------------------------------------------------------------------------


def test_accumulation_weighs_the_losses(workshop: Workshop) -> None:
    """Two halves that are alike give the gradients of the whole, those of the routers' losses included."""
    package = workshop(spec("block < moe(expert=relu(5), balance=50, z_loss=5) top1/4 >"))
    train, data, optimizer = (package.module(name) for name in ("train", "data", "optimizer"))
    row = draw_tokens()[:1]
    rows = row.expand(4, T).contiguous()
    batch = data.Batch(rows, rows.roll(-1, 1), torch.arange(T).expand(4, T).contiguous())
    grads = []
    for parts in (1, 2, 4):
        model = package.make().train()
        train.accumulate(
            model, optimizer.Optimizer(model, weight_decay=0.0, clip=0.0), batch, parts, torch.device("cpu")
        )
        grads.append([p.grad for p in model.parameters()])
    for got in grads[1:]:
        for one, whole in zip(got, grads[0], strict=True):
            torch.testing.assert_close(one, whole, **EXACT)


def test_training_balances_the_experts(workshop: Workshop) -> None:
    """From a router that loves one expert, by the balance loss or by the selection bias."""
    for words in ("moe(expert=relu(5), balance=0.1) top1/4", "moe(expert=relu(5), router=sigmoid(select_bias)) top1/4"):
        package = workshop(spec(f"block < {words} >"))
        optimizer = package.module("optimizer")
        model = package.make(torch.float32).train()
        layer = model.layers[0].mlp
        with torch.no_grad():
            layer.router.weight.mul_(0.1)
            layer.router.weight[0] += 0.2 * model.embed.weight.mean(0).sign()
            model.embed.weight += 0.5 * model.embed.weight.mean(0).sign()
        moved = optimizer.Optimizer(model, weight_decay=0.0, clip=1.0)
        tokens, loads = draw_tokens(64), []
        for _ in range(150):
            logits = model(tokens)
            torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
            moved.collect()
            moved.step(1e-2)
            with torch.no_grad():
                seen = layer.router(model.layers[0].mlp_norm(model.embed(tokens))).sigmoid()
                scores = seen + getattr(layer, "select_bias", 0.0)
            loads.append(float(scores.argmax(-1).flatten().bincount(minlength=4).max()) / tokens.numel())
        assert loads[-1] < 0.5 < loads[0], (words, loads[0], loads[-1])


# --- what a spec may say ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "at"),
    [
        ("moe(router=softmax(groups=3, top_groups=1)) top2/8", "uneven-groups", "3"),
        ("moe(router=softmax(groups=4)) top2/8", "expert-groups", "4"),
        ("moe(router=softmax(groups=4, top_groups=1)) top3/8", "expert-groups", "1"),
        ("moe(router=softmax(top_groups=4)) top2/8", "expert-groups", "4"),
        ("moe(router=sigmoid(groups=8, top_groups=4)) top2/8", "expert-groups", "sigmoid(groups=8, top_groups=4)"),
        ("moe(router=sigmoid(groups=2, top_groups=1, group_top=5)) top2/8", "expert-groups", "5"),
        ("moe(router=softmax(jitter=1)) top1/3", "too-much-jitter", "1"),
        ("moe(shared_gate) top2/8", "gate-without-shared", "shared_gate"),
        ("moe(expert=swiglu(4, in_scale=2)) top2/8", "expert-field", "2"),
        ("moe(expert=swiglu(4, out_norm=rms)) top2/8", "expert-field", "rms"),
        ("moe(expert=swiglu(4, lora(3, on=[gate_up]))) top2/8", "expert-field", "swiglu(4, lora(3, on=[gate_up]))"),
        ("moe(shared=swiglu(4, lora(3, on=[q]))) top2/8", "unknown-projection", "[q]"),
        ("moe(capacity=0) top2/8", "too-small", "0"),
        ("moe(balance=0) top2/8", "too-small", "0"),
        ("moe(router=sigmoid(scale=-1)) top2/8", "too-small", "-1"),
        ("moe(router=hash) top2/8", "wrong-value", "hash"),
        ("moe top4/3", "too-few-experts", "top4/3"),
    ],
)
def test_what_cannot_be_is_said_where_it_was_said(words: str, code: str, at: str) -> None:
    text = spec(f"block < attn gqa(4,2) + {words} >").replace("mlp none", "mlp swiglu(8)")
    with pytest.raises(DiagnosticError) as raised:
        compiler.load(Source("spec", text))
    (found,) = raised.value.diagnostics
    assert found.code == code
    assert found.labels[0].span.text == at


def test_experts_have_widths_of_their_own() -> None:
    model = compiler.load(Source("spec", spec("block < attn gqa(4,2) + moe(expert=relu(9), shared=gelu(4)) top1/2 >")))
    shapes = {t.name: t.shape for t in compiler.analyse(model, Workload(1)).params.tensors}
    assert shapes["layers.*.mlp.experts.up_proj"] == (2, 9, 12)
    assert shapes["layers.*.mlp.shared.up_proj.weight"] == (4, 12)
