"""Mixture of experts: choose experts, group rows by expert, put the results together.

Sources: Shazeer et al. 2017, arXiv:1701.06538; Switch, arXiv:2101.03961; ST-MoE, arXiv:2202.08906; DeepSeek-V3,
arXiv:2412.19437; dropless grouping, arXiv:2211.15841. The experts themselves are `archc.ops.linear.ExpertLinear`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

from archc.ir.body import Body, StackedExperts
from archc.ir.op import Op, Printer, Result
from archc.ir.size import as_size, mul
from archc.ir.tape import INDEX_BYTES, Buffer, Tape
from archc.ir.values import BATCH, TIME, Axis, Init, Value, Weight, constant_axis, numel
from archc.ops.linear import ExpertLinear

SELECT_BIAS = "select_bias"
TRAINING = "training=self.training"
ENDS_BYTES = 4  # int32


@dataclass(frozen=True, kw_only=True)
class Route(Op):
    """The `top_k` best experts of each token, and their weights: the scores, made to sum to one, scaled.

    `select_bias` is added to the scores for the choice alone. With `groups`, the choice is among the experts of the
    `top_groups` groups whose `group_top` best sum to most.
    """

    top_k: int
    scores: str = "softmax"
    renormalise: bool = False
    select_bias: Axis | None = None  # the experts, if there is one
    groups: int = 1
    top_groups: int = 1
    group_top: int = 2
    scale: float = 1.0

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        axes = (*inputs[0].axes[:-1], constant_axis("top_k", self.top_k))
        return Result(axes), Result(axes, "index")

    def weights(self) -> tuple[Weight, ...]:
        if self.select_bias is None:
            return ()
        return (Weight(SELECT_BIAS, (self.select_bias,), Init("zeros_"), decay=False, keep_fp32=True),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        (logits,), (weights, experts) = inputs, outputs
        tape.extra("scores", mul(numel(logits.axes), tape.width()))
        if self.renormalise:
            tape.extra("chosen", mul(numel(weights.axes), tape.width()))
            tape.extra("their sum", mul(numel(weights.axes[:-1]), tape.width()))
        tape.new(weights, wide=True)
        tape.new(experts)
        tape.keep(experts)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".routing", "route"),)

    def code(self, p: Printer) -> str:
        options = [f"top_k={self.top_k}"]
        if self.scores != "softmax":
            options.append(f'scores="{self.scores}"')
        if self.renormalise:
            options.append("renormalise=True")
        if self.select_bias is not None:
            options.append(f"select_bias={p.weight(SELECT_BIAS)}")
        if self.groups > 1:
            options += [f"groups={self.groups}", f"top_groups={self.top_groups}", f"group_top={self.group_top}"]
        if self.scale != 1.0:
            options.append(f"scale={self.scale!r}")
        return f"route({p.inputs[0]}, {', '.join(options)})"

    @property
    def label(self) -> str:
        words = [f"route top{self.top_k}"]
        words += [self.scores] * (self.scores != "softmax") + ["renormalise"] * self.renormalise
        words += ["select_bias"] * (self.select_bias is not None)
        words += [f"top{self.top_groups}/{self.groups} groups of best {self.group_top}"] * (self.groups > 1)
        words += [f"scale {self.scale!r}"] * (self.scale != 1.0)
        return " ".join(words)


@dataclass(frozen=True, kw_only=True)
class Jitter(Op):
    """In training, what the router reads times uniform noise around one (Switch, arXiv:2101.03961)."""

    amount: float

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.extra("noise", mul(numel(inputs[0].axes), tape.width()))
        tape.new(*outputs, wide=tape.wide(*inputs))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".routing", "jitter"),)

    def code(self, p: Printer) -> str:
        return f"jitter({p.inputs[0]}, {self.amount!r}, {TRAINING})"

    @property
    def label(self) -> str:
        return f"jitter {self.amount!r}"


@dataclass(frozen=True, kw_only=True)
class RouterLosses(Op):
    """The router's weights, unchanged; in training, backward adds the gradients of the router's own losses."""

    balance: float
    z_loss: float
    scores: str
    select_bias: bool

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        """What the losses' own gradients read; the weights are handed through."""
        _, logits, _ = inputs
        scores, tokens = mul(numel(logits.axes), tape.width()), mul(numel(logits.axes[:-1]), tape.width())
        load = mul(logits.width.symbol, tape.width())
        if self.balance:
            tape.extra("scores", scores)
            tape.extra("load", load)
            if self.scores == "sigmoid":
                tape.extra("their sum", tokens)
        if self.z_loss:
            if tape.width(tape.wide(logits)) == tape.width():
                tape.keep(logits)
            else:
                tape.extra("logits", scores)
            tape.extra("log-sum-exp", tokens)
        if self.select_bias:
            tape.extra("excess load", load)
        tape.extra("share", as_size(tape.width()))
        tape.new(*outputs, wide=tape.wide(inputs[0]))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".router_losses", "with_losses"),)

    def code(self, p: Printer) -> str:
        options = [f"balance={self.balance!r}"] * (self.balance != 0) + [f"z_loss={self.z_loss!r}"] * (self.z_loss != 0)
        if self.balance and self.scores != "softmax":
            options.append(f'scores="{self.scores}"')
        if self.select_bias:
            options.append(f"select_bias={p.weight(SELECT_BIAS)}")
        return f"with_losses({', '.join([*p.inputs, *options, TRAINING])})"

    @property
    def label(self) -> str:
        words = [f"balance {self.balance!r}"] * (self.balance != 0) + [f"z_loss {self.z_loss!r}"] * (self.z_loss != 0)
        return " ".join(["losses", *words, *["steering"] * self.select_bias])


@dataclass(frozen=True, kw_only=True)
class Capacity(Op):
    """In training, weights of zero for what an expert has no room for: above `capacity` times an even share."""

    capacity: Fraction

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.extra("left out", numel(inputs[0].axes))  # one byte each
        tape.new(*outputs, wide=tape.wide(inputs[0]))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".routing", "within_capacity"),)

    def code(self, p: Printer) -> str:
        return f"within_capacity({', '.join(p.inputs)}, capacity={self.capacity.as_integer_ratio()}, {TRAINING})"

    @property
    def label(self) -> str:
        return f"capacity {self.capacity}"


@dataclass(frozen=True, kw_only=True)
class Dispatch(Op):
    """`[B, T, d] -> [B*T*top_k, d]`: one row for each chosen expert of each token, grouped by expert; and how."""

    n_experts: int

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        h, experts = inputs
        rows = Axis("rows", mul(BATCH.symbol, TIME.symbol, experts.width.symbol))
        return Result((rows, h.width)), Result((rows,), "plan")

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        (_, experts), (rows, plan) = inputs, outputs
        tape.new(rows, wide=tape.wide(inputs[0]))
        places = mul(INDEX_BYTES, numel(experts.axes))
        sizes = {"order": places, "place": places, "ends": as_size(ENDS_BYTES * self.n_experts)}
        tape.put(plan, *(Buffer(name, size, maker=tape.maker) for name, size in sizes.items()))
        tape.keep(plan)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".experts", "dispatch"),)

    def code(self, p: Printer) -> str:
        return f"dispatch({p.inputs[0]}, {p.inputs[1]}, n_experts={self.n_experts})"

    @property
    def label(self) -> str:
        return "dispatch"


@dataclass(frozen=True, kw_only=True)
class Combine(Op):
    """Back to `[B, T, d]`: the sum of each token's rows, weighted by the router."""

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        rows, weights, _ = inputs
        return (Result((*weights.axes[:-1], rows.width)),)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        tape.new(*outputs, wide=tape.wide(inputs[0]))

    def imports(self) -> tuple[tuple[str, str], ...]:
        return ((".experts", "combine"),)

    def code(self, p: Printer) -> str:
        return f"combine({', '.join(p.inputs)})"

    @property
    def label(self) -> str:
        return "combine"


def route(b: Body, op: Route, logits: Value) -> tuple[Value, Value]:
    weights, experts = b.apply(op, logits)
    return weights, experts


def jitter(b: Body, h: Value, amount: float) -> Value:
    return b.one(Jitter(amount=amount), h)


def router_losses(b: Body, op: RouterLosses, weights: Value, logits: Value, plan: Value) -> Value:
    return b.one(op, weights, logits, plan)


def within_capacity(b: Body, weights: Value, experts: Value, plan: Value, capacity: Fraction) -> Value:
    return b.one(Capacity(capacity=capacity), weights, experts, plan)


def dispatch(b: Body, h: Value, experts: Value, n_experts: int) -> tuple[Value, Value]:
    rows, plan = b.apply(Dispatch(n_experts=n_experts), h, experts)
    return rows, plan


def combine(b: Body, rows: Value, weights: Value, plan: Value) -> Value:
    return b.one(Combine(), rows, weights, plan)


@contextmanager
def stacked(
    b: Body, name: str, experts: Axis, top_k: int, plan: Value, projection: type[ExpertLinear] = ExpertLinear
) -> Iterator[None]:
    """Within it, every projection is one matrix per expert, stored as `name.path [E, d_out, d_in]`."""
    b.stacked = StackedExperts(name, experts, top_k, plan, projection)
    try:
        yield
    finally:
        b.stacked = None
