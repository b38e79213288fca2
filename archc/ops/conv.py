"""Causal depthwise convolution along the sequence: each channel sees itself and its d_conv - 1 predecessors."""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Flops, Kernel, Module, Op, Printer, Result
from archc.ir.size import Size, Symbol, mul
from archc.ir.values import BATCH, TIME, Axis, Init, State, Value, Weight


def conv_flops(channels: Size, width: Size) -> Flops:
    """One multiply-add per tap forward; backward one for the input and one for the weight."""
    forward = mul(2, BATCH.symbol, TIME.symbol, channels, width)
    return Flops(forward, forward, 2 * forward)


def conv_kernel(width: int, bias: bool, silu: bool) -> Kernel:
    flops = conv_flops(Symbol("channels"), Symbol("d_conv"))
    options: dict[str, int | bool | str] = {
        "width": width,
        "bias": bias,
        "silu": silu,
        "flops_forward": str(flops.forward),
        "flops_backward": str(flops.backward),
    }
    tag = f"w{width}" + ("_bias" if bias else "") + ("_silu" if silu else "")
    return Kernel("causal_conv1d", options, tag)


@dataclass(frozen=True, kw_only=True)
class CausalConv1d(Op):
    """`y[t] = sum_k w[k] x[t - (K-1) + k] (+ bias)`, per channel. Weight `[C, 1, K]`, as `nn.Conv1d` stores it."""

    path: str
    channels: Axis
    width: Axis
    bias: bool = True

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def weights(self) -> tuple[Weight, ...]:
        bound = self.width.size.value**-0.5  # nn.Conv1d's own: uniform in +-1/sqrt(fan in), fan in = d_conv
        uniform = Init("uniform_", (bound,))
        one = Axis("1", mul(1))
        weight = Weight(f"{self.path}.weight", (self.channels, one, self.width), uniform)
        bias = Weight(f"{self.path}.bias", (self.channels,), uniform, decay=False)
        return (weight, bias) if self.bias else (weight,)

    def modules(self) -> tuple[Module, ...]:
        channels, width = self.channels.size.value, self.width.size.value
        bias = "" if self.bias else ", bias=False"
        imports = ((".depthwise", "DepthwiseConv1d"),)
        return (Module(self.path, f"DepthwiseConv1d({channels}, {width}{bias})", imports=imports),)

    def state(self) -> tuple[State, ...]:
        """The inputs of the last d_conv - 1 tokens."""
        columns = Axis("d_conv - 1", self.width.symbol - 1)
        return (State("conv", (columns, self.channels), "conv", "activation"),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        return conv_flops(self.channels.symbol, self.width.symbol)

    def kernel(self, silu: bool) -> Kernel:
        return conv_kernel(self.width.size.value, self.bias, silu)

    def call(self, p: Printer, silu: bool) -> str:
        module = p.weight(self.path)
        bias = f", {module}.bias" if self.bias else ""
        name = p.kernel(self.kernel(silu))
        return f"{name}({p.inputs[0]}, {module}.weight{bias}, positions={p.positions}, {p.held('conv')})"

    def code(self, p: Printer) -> str:
        return self.call(p, silu=False)

    @property
    def mixes_tokens(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"causal_conv1d[{self.path}]"


def causal_conv1d(b: Body, path: str, x: Value, width: Axis, *, bias: bool = True) -> Value:
    return b.one(CausalConv1d(path=path, channels=x.width, width=width, bias=bias), x)
