"""Every kernel of every variant compiles for sm_80 and sm_90 without a GPU, and keeps its values in registers."""

import importlib
import re
import subprocess
import tempfile
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .variants import CONVS, SCANS, VIEWS

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from .inputs import conv_inputs, positions_of, scan_inputs  # noqa: E402

TARGETS = (80, 90)
MOST_STACK_BYTES = 256  # of a thread; more means that registers spill in the hot loop
LANES_STACK_BYTES = 32  # the lane programs: a few values that live through the whole kernel, at most
CAPPED_STACK_BYTES = 320  # where fewer registers make one wave of warps: faster than the same without spills (NOTES.md)
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
POINTERS |= {torch.int64: "*i64", torch.int32: "*i32"}


class Compiled(list[tuple[str, int, int, int]]):
    """Kernel, target, registers and bytes of stack of everything that would have been launched."""

    def launch(self, kernel: Any, *args: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
        names = ("num_warps", "num_stages", "maxnreg")
        options = {key: keywords.pop(key) for key in names if key in keywords}
        bound = dict(zip(kernel.arg_names, args, strict=False)) | keywords
        signature, constants, attributes = {}, {}, {}
        for index, parameter in enumerate(kernel.params):
            value = bound[parameter.name]
            if parameter.is_constexpr or value is None:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
                continue
            if isinstance(value, torch.Tensor):
                signature[parameter.name], aligned = POINTERS[value.dtype], True
            elif isinstance(value, float):
                signature[parameter.name], aligned = "fp32", False
            else:
                signature[parameter.name], aligned = parameter.annotation_type or "i32", value % 16 == 0
            if aligned:
                attributes[(index,)] = [["tt.divisibility", 16]]
        for target in TARGETS:
            language = GluonASTSource if isinstance(kernel, GluonJITFunction) else ASTSource
            source = language(kernel, signature, constants, attributes)
            binary = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
            assert len(binary.asm["cubin"]) > 1000
            self.append((kernel.__name__, target, *resources(binary.asm["cubin"])))


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread, by the `cuobjdump` that comes with triton; zeros without it."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        return 0, 0
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, check=False)
    found = re.search(rb"REG:(\d+) STACK:(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    compiled = Compiled()
    monkeypatch.setattr(
        JITFunction, "run", lambda kernel, *args, **keywords: compiled.launch(kernel, *args, **keywords)
    )
    return compiled


@pytest.mark.parametrize("name", VIEWS)
def test_compiles(
    package: ModuleType,
    name: str,
    compiled: Compiled,
    record_property: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels = importlib.import_module(f"{package.__name__}.{name}_kernels")
    positions = positions_of(2, 128)
    if name in SCANS:
        view = SCANS[name]
        gradients = importlib.import_module(f"{package.__name__}.{name}_backward_kernels")
        steps = importlib.import_module(f"{package.__name__}.{name}_step_kernels")
        d_inner = view.d_inner if view.lanes else 96
        inputs = [bf16(value) for value in scan_inputs(name, 128, d_inner, torch.float32).values()]
        state = torch.zeros(2, d_inner, view.d_state)
        if view.lanes:
            lanes = importlib.import_module(f"{package.__name__}.{name}_lanes_kernels")
            options = ((None, None), (positions, state))
            for plan, (packed, initial) in zip(lanes.PLANS, cycle(options), strict=False):
                monkeypatch.setattr(lanes, "PLANS", (plan,))
                before = len(compiled)
                y, _, states = kernels.forward(*inputs, packed, initial)
                gradients.backward(y, initial, *inputs, packed, states)
                most = CAPPED_STACK_BYTES if plan.backward_registers < 255 else LANES_STACK_BYTES
                assert max(stack for *_, stack in compiled[before:]) <= most
        else:
            for packed, initial in ((None, None), (positions, state)):
                y, _, states = kernels.forward(*inputs, packed, initial)
                gradients.backward(y, initial, *inputs, packed, states)
        token = [value[:, :1] if value.ndim == 3 else value for value in inputs]
        steps.step(*token, positions[:, :1], state)
        steps.step(*token, None, state)
        expected = {"_forward_kernel", "_backward_kernel", "_step_kernel"} | (
            {"_widen_kernel"} if view.lanes else set()
        )
    elif name in CONVS:
        view = CONVS[name]
        gradients = importlib.import_module(f"{package.__name__}.{name}_backward_kernels")
        inputs = [value.bfloat16() for value in conv_inputs(name, 128, 640, torch.float32).values()]
        state = torch.zeros(2, view.width - 1, 640, dtype=torch.bfloat16)
        for packed, initial in ((None, None), (positions, state)):
            y = kernels.forward(*inputs, packed, initial)
            gradients.backward(y, *inputs, packed, initial)
        kernels.step(inputs[0][:, :1], *inputs[1:], positions[:, :1], state)
        kernels.step(inputs[0][:, :1], *inputs[1:], None, state)
        expected = {"_forward_kernel", "_backward_kernel", "_step_kernel"}
    elif name == "rms_norm":
        for width in (16, 4096, 16384):
            x, residual = torch.zeros(8, width, dtype=torch.bfloat16), torch.zeros(8, width)
            weight = torch.zeros(width, dtype=torch.bfloat16)
            y, rstd = kernels.forward(x, weight, 1e-5)
            kernels.backward(y, None, x, weight, rstd)
            y, total, rstd = kernels.add_forward(x, residual, weight, 1e-5)
            kernels.backward(y, total, total, weight, rstd)
        expected = {"_forward_kernel", "_backward_kernel"}
    else:
        gate, up = torch.zeros(8, 2048, dtype=torch.bfloat16).chunk(2, -1)
        kernels.backward(kernels.forward(gate, up), gate, up)
        expected = {"_forward_kernel", "_backward_kernel"}
    assert {kernel for kernel, *_ in compiled} == expected
    for kernel, target, registers, stack in sorted(set(compiled)):
        record_property(f"{name}{kernel}/sm_{target}", f"{registers} registers, {stack} bytes of stack")
        print(f"{name}{kernel} sm_{target}: {registers} registers, {stack} bytes of stack")
    if not (name in SCANS and SCANS[name].lanes):
        assert max(stack for *_, stack in compiled) <= MOST_STACK_BYTES


def bf16(value: torch.Tensor) -> torch.Tensor:
    """Activations in bfloat16; parameters stay in float32."""
    return value.bfloat16() if value.ndim == 3 else value
