"""Programs as statements: the author's names, expressions where they are used, one name for one living value."""

from __future__ import annotations

from archc.codegen.programs import Names, Program, parts
from archc.ir.graph import Node, OpGraph
from archc.ir.op import Op
from archc.ir.values import BATCH, TIME, Value, constant_axis
from archc.ops.linear import Linear
from archc.ops.pointwise import Activation, Add, Mul, Scale

WIDTH = constant_axis("d_model", 8)


def value(name: str | None) -> Value:
    return Value((BATCH, TIME, WIDTH), name)


def printed(inputs: list[Value], outputs: list[Value], *steps: tuple[Op, tuple[Value, ...], Value]) -> list[str]:
    """The statements of a program, without their shapes."""
    nodes = tuple(Node(op, reads, (written,)) for op, reads, written in steps)
    part = parts(OpGraph(tuple(inputs), tuple(outputs), nodes), ())
    body = Program(part, Names(lambda kernel: kernel.family)).body()
    return [line.split("  #")[0].strip() for line in body]


def act(function: str) -> Activation:
    return Activation(function=function)


def test_unnamed_values_are_written_where_they_are_used() -> None:
    h, gate, y = value("h"), value(None), value("y")
    assert printed([h], [y], (act("silu"), (h,), gate), (Mul(), (gate, h), y)) == ["return F.silu(h) * h"]


def test_an_expression_that_is_no_call_keeps_a_name() -> None:
    h, scaled, y = value("h"), value(None), value("y")
    steps = (Scale(factor=0.5), (h,), scaled), (Mul(), (scaled, h), y)
    assert printed([h], [y], *steps) == ["y = h * 0.5", "return y * h"]


def test_a_name_is_used_again_once_its_value_is_dead() -> None:
    x, inner, outer = value("x"), value("x"), value("x")
    lines = printed([x], [outer], (act("silu"), (x,), inner), (act("gelu"), (inner,), outer))
    assert lines == ["x = F.silu(h)", "return F.gelu(x)"]


def test_two_living_values_of_one_name_are_told_apart() -> None:
    h, one, two, y = value("h"), value("x"), value("x"), value("y")
    lines = printed([h], [y], (act("silu"), (h,), one), (act("gelu"), (h,), two), (Add(), (one, two), y))
    assert lines == ["x = F.silu(h)", "x_2 = F.gelu(h)", "return x + x_2"]


def test_no_name_is_taken_from_an_expression_that_waits() -> None:
    """`F.silu(x)` is written two lines later, and means the first x there."""
    h, x, waits, again, y = value("h"), value("x"), value(None), value("x"), value("y")
    lines = printed(
        [h],
        [y],
        (act("relu"), (h,), x),
        (act("silu"), (x,), waits),
        (act("gelu"), (x,), again),
        (Add(), (again, waits), y),
    )
    assert lines == ["x = F.relu(h)", "x_2 = F.gelu(x)", "return x_2 + F.silu(x)"]


def test_what_a_module_returns_gets_a_name_with_a_type() -> None:
    h, y, out = value("h"), value("y"), value(None)
    project = Linear(path="out_proj", d_in=WIDTH, to=(WIDTH,))
    lines = printed([h], [out], (act("silu"), (h,), y), (project, (y,), out))
    assert lines == ["y = F.silu(h)", "out: Tensor = self.out_proj(y)", "return out"]
