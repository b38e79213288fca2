"""The selective scan of Mamba. Source: Gu & Dao 2023, arXiv:2312.00752.

h[t] = exp(dt[t] A) h[t-1] + (dt[t] x[t]) B[t]        A = -exp(A_log), h [d_inner, d_state]
y[t] = C[t] · h[t] + D x[t]

Several heads are as many scans side by side: each has its own channels, B and C (Zamba, arXiv:2405.16712).
"""

from __future__ import annotations

from dataclasses import dataclass

from archc.ir.body import Body
from archc.ir.op import Flops, Kernel, Op, Printer, Result
from archc.ir.size import Size, Symbol, ceil_div, mul
from archc.ir.tape import Tape
from archc.ir.values import BATCH, TIME, Axis, Init, State, Value, Weight, numel


def scan_flops(d_inner: Size, d_state: Size) -> Flops:
    """Elementary operations of the recurrence, counted one by one.

    Forward, per state: dt·A, exp, (dt x)·B, a·h + bx (2), C·h and its sum (2) = 7; per channel: dt·x, D·x, its add = 3.
    Backward, per state: the first five again to re-derive h; g = a'·g' + dy·C (3); dC, dB, d(dt x) a product and a sum
    each (6); g·h·a (2); its sums into dA (2) and ddt (2) = 20; per channel: dt·x, dx (3), ddt (2), dD (2) = 8.
    """
    channels = mul(BATCH.symbol, TIME.symbol, d_inner)
    forward = channels * (7 * d_state + 3)
    return Flops(forward, forward, channels * (20 * d_state + 8))


def lanes(d_inner: int, d_state: int) -> bool:
    """Whether lane programs serve these sizes: 4 lanes of 4 states a channel, and a warp's 16 channels or none."""
    return d_state == 16 and d_inner % 16 == 0


def chunk(d_inner: int, d_state: int) -> int:
    """Tokens between saved states.

    Lane programs derive the states of a chunk into scratch memory that should stay in cache. Below 8192 channels three
    warps share what two have above (`codegen/kernels/tiles`), and 32 tokens are faster; 64 save half the memory.
    """
    return 32 if lanes(d_inner, d_state) and d_inner < 8192 else 64


@dataclass(frozen=True, kw_only=True)
class SelectiveScan(Op):
    """Inputs x, dt `[B, T, d_inner]`, B, C `[B, T, d_state]`; owns A_log and D, kept in fp32.

    With `heads` all of them have that axis before the last, and A_log, D and the state lead with it.
    """

    d_inner: Axis
    d_state: Axis
    heads: Axis | None = None

    @property
    def channels(self) -> tuple[Axis, ...]:
        return (self.d_inner,) if self.heads is None else (self.heads, self.d_inner)

    def results(self, *inputs: Value) -> tuple[Result, ...]:
        return (Result(inputs[0].axes),)

    def weights(self) -> tuple[Weight, ...]:
        a_log = Weight("A_log", (*self.channels, self.d_state), Init("A_log_"), decay=False, keep_fp32=True)
        return a_log, Weight("D", self.channels, Init("ones_"), decay=False, keep_fp32=True)

    def state(self) -> tuple[State, ...]:
        return (State("ssm", (*self.channels, self.d_state), "ssm", "state"),)

    def flops(self, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Flops:
        return scan_flops(numel(self.channels), self.d_state.symbol)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        tape.keep(*inputs)
        states = mul(numel(self.channels), self.d_state.symbol, tape.width())
        chunks = ceil_div(TIME.symbol, chunk(self.d_inner.size.value, self.d_state.size.value))
        tape.extra("states", mul(BATCH.symbol, chunks, states), product=True)
        tape.extra("final state", mul(BATCH.symbol, states), kept=False, product=True)
        if self.heads is not None:  # whose results are put side by side
            tape.extra("heads", mul(numel(outputs[0].axes), tape.element), kept=False, product=True)
        tape.new(*outputs, product=self.heads is None)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return () if self.heads is None else ((".heads", "per_head"),)

    def kernel(self, *, dt_bias: bool, dt_softplus: bool, gate: bool) -> Kernel:
        flops = scan_flops(Symbol("d_inner"), Symbol("d_state"))
        options: dict[str, int | bool | str] = {
            "d_inner": self.d_inner.size.value,
            "d_state": self.d_state.size.value,
            "gate": gate,
            "skip": True,
            "dt_bias": dt_bias,
            "dt_softplus": dt_softplus,
            "flops_forward": str(flops.forward),
            "flops_backward": str(flops.backward),
        }
        taken_in = [name for name in ("gate", "dt_bias", "dt_softplus") if options[name]]
        flags = {0: "_plain", 3: ""}.get(len(taken_in), "_" + "_".join(taken_in))
        return Kernel("selective_scan", options, f"d{self.d_inner.size.value}_n{self.d_state.size.value}{flags}")

    def code(self, p: Printer) -> str:
        kernel = self.kernel(dt_bias=False, dt_softplus=False, gate=False)
        x, dt, B, C = p.inputs
        return self.call(p, kernel, ", ".join([x, dt, p.weight("A_log"), B, C, p.weight("D")]))

    def call(self, p: Printer, kernel: Kernel, operands: str) -> str:
        start = f"{p.kernel(kernel)}(" if self.heads is None else f"per_head({p.kernel(kernel)}, "
        return f"{start}{operands}, positions={p.positions}, {p.held('ssm')})"

    @property
    def mixes_tokens(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return "selective_scan" if self.heads is None else f"selective_scan of {self.heads.size.value} heads"


def selective_scan(b: Body, x: Value, dt: Value, B: Value, C: Value) -> Value:
    heads = x.axes[2] if len(x.axes) == 4 else None
    return b.one(SelectiveScan(d_inner=x.width, d_state=B.width, heads=heads), x, dt, B, C)
