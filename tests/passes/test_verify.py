"""verify refuses graphs that break a law of the IR, and says where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from archc import compiler
from archc.diagnostics import Source
from archc.ir.graph import Graph, Layer, Node, OpGraph, Use
from archc.ir.values import BATCH, TIME, Value, constant_axis
from archc.ir.verify import InvalidGraphError, verify
from archc.ops.linear import Linear
from archc.ops.pointwise import Activation, Add

WIDTH, OTHER = constant_axis("d_model", 8), constant_axis("d_ff", 12)
GELU = Activation(function="gelu")


def value(name: str, axis=WIDTH) -> Value:
    return Value((BATCH, TIME, axis), name)


def linear(path: str) -> Linear:
    return Linear(path=path, d_in=WIDTH, to=(WIDTH,))


def model(*programs: OpGraph) -> Graph:
    """A model around these layers."""
    graph = compiler.load(Source("spec", "vocab 7\nd_model 8\nmlp none\nblock < mamba(d_state=2) >")).graph
    return replace(graph, stack=tuple(Use(Layer(program, (), "layer", i)) for i, program in enumerate(programs)))


def program(nodes: list[Node], inputs: list[Value], outputs: list[Value]) -> OpGraph:
    return OpGraph(tuple(inputs), tuple(outputs), tuple(nodes))


def refused(*programs: OpGraph) -> str:
    with pytest.raises(InvalidGraphError) as caught:
        verify(model(*programs), "some_pass")
    assert "after some_pass" in str(caught.value)
    return str(caught.value)


h, x, y = value("h"), value("x"), value("y")
WELL_FORMED = program([Node(GELU, (h,), (x,)), Node(Add(), (h, x), (y,))], [h], [y])


def test_a_well_formed_graph_holds() -> None:
    graph = model(WELL_FORMED, WELL_FORMED)
    assert verify(graph, "some_pass") is graph


def test_a_value_is_written_before_it_is_read() -> None:
    late = program([Node(Add(), (h, x), (y,)), Node(GELU, (h,), (x,))], [h], [y])
    assert "reads x before it is written" in refused(late)


def test_a_value_of_another_graph_is_no_input() -> None:
    assert "reads a value before" in refused(program([Node(Add(), (h, Value(h.axes)), (y,))], [h], [y]))


def test_the_ops_form_no_cycle() -> None:
    assert "cycle" in refused(program([Node(Add(), (h, y), (x,)), Node(GELU, (x,), (y,))], [h], [y]))


def test_outputs_have_the_shapes_of_the_op() -> None:
    wide = value("wide", OTHER)
    assert "other shapes" in refused(program([Node(GELU, (h,), (wide,)), Node(Add(), (h, wide), (y,))], [h], [y]))
    assert "other shapes" in refused(program([Node(GELU, (h,), (x, y))], [h], [x, y]))


def test_a_value_is_written_once() -> None:
    assert "writes x twice" in refused(program([Node(GELU, (h,), (x,)), Node(linear("p"), (h,), (x,))], [h], [x]))
    other = value("other")
    assert "writes other twice" in refused(program([Node(GELU, (h,), (other,))], [h, other], [other]))


def test_a_weight_is_owned_once() -> None:
    twice = program([Node(linear("p"), (h,), (x,)), Node(linear("p"), (x,), (y,))], [h], [y])
    assert "p.weight is owned twice" in refused(twice)
    apart = program([Node(linear("p"), (h,), (x,), "mixer"), Node(linear("p"), (x,), (y,), "mlp")], [h], [y])
    verify(model(apart), "some_pass")


def test_outputs_are_written() -> None:
    assert "never written" in refused(program([Node(GELU, (h,), (x,))], [h], [x, y]))


def test_nothing_is_dead() -> None:
    assert "is dead" in refused(program([Node(GELU, (h,), (x,)), Node(linear("p"), (h,), (y,))], [h], [x]))


def test_layers_hand_on_what_the_next_one_takes() -> None:
    delta, total = value("delta"), value("residual")
    pair = program([Node(Add(), (delta, total), (x,)), Node(GELU, (x,), (y,))], [delta, total], [y, x])
    assert "layers disagree" in refused(WELL_FORMED, pair)
    assert "layers disagree" in refused(pair)  # the head takes one value
