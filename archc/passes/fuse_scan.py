"""The selective scan takes in its neighbours: the bias and softplus of dt before it, the SiLU gate behind it.

Before:  dt = linear[dt_proj] bias (dt);  dt = softplus (dt)
         y = selective_scan (x, dt, B, C);  y = mul (y, silu (z))
After:   dt = linear[dt_proj] bias elsewhere (dt)
         y = GatedScan(softplus, selective_scan, silu, mul) (x, dt, B, C, z)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from archc.ir.graph import Graph, Node, OpGraph, rewrite
from archc.ir.op import Kernel, Printer
from archc.ir.region import Region
from archc.ir.tape import Tape
from archc.ir.values import Value
from archc.ops.head_linear import HeadLinear
from archc.ops.linear import Linear
from archc.ops.pointwise import Activation, Mul
from archc.ops.scan import SelectiveScan

SOFTPLUS = Activation(function="softplus")
SILU = Activation(function="silu")


@dataclass(frozen=True, kw_only=True, eq=False)
class GatedScan(Region):
    """`selective_scan(x, softplus(dt + bias), B, C) * silu(z)`; `bias_path` is stored by the projection of dt."""

    scan: SelectiveScan
    bias_path: str | None
    softplus: bool
    gate: bool

    @property
    def kernel(self) -> Kernel:
        return self.scan.kernel(dt_bias=self.bias_path is not None, dt_softplus=self.softplus, gate=self.gate)

    def retain(self, tape: Tape, inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> None:
        self.scan.retain(tape, inputs, outputs)

    def imports(self) -> tuple[tuple[str, str], ...]:
        return self.scan.imports()

    def code(self, p: Printer) -> str:
        x, dt, B, C, *gate = p.inputs
        bias = [p.weight(self.bias_path)] if self.bias_path else []
        return self.scan.call(p, self.kernel, ", ".join([x, dt, p.weight("A_log"), B, C, p.weight("D"), *gate, *bias]))


def fuse_scan(graph: Graph) -> Graph:
    return rewrite(graph, _fuse)


def _fuse(graph: OpGraph) -> OpGraph:
    for node in graph.nodes:
        if isinstance(node.op, SelectiveScan):
            graph = _take_in(graph, node, node.op)
    return graph


def _take_in(graph: OpGraph, node: Node, scan: SelectiveScan) -> OpGraph:
    x, dt, B, C = node.inputs
    members = [node]
    outputs, bias_path, gate = node.outputs, None, []
    softplus = _step_size(graph, node, dt)
    if softplus is not None:
        members.append(softplus)
        (dt,) = softplus.inputs
        graph, bias_path = _lend_bias(graph, dt)
    gating = _gate(graph, node.outputs[0])
    if gating is not None:
        product, activation = gating
        members += [product, activation]
        outputs, gate = product.outputs, list(activation.inputs)
    if len(members) == 1:
        return graph
    inputs = (x, dt, B, C, *gate)
    order = {id(n): i for i, n in enumerate(graph.nodes)}
    inside = tuple(sorted(members, key=lambda n: order[id(n)]))
    region = GatedScan(
        inner=OpGraph(inputs, outputs, inside),
        scan=scan,
        bias_path=bias_path,
        softplus=softplus is not None,
        gate=gating is not None,
    )
    return graph.contract(inside, Node(region, inputs, outputs, node.scope))


def _step_size(graph: OpGraph, scan: Node, dt: Value) -> Node | None:
    """The softplus that makes dt, if only the scan reads it."""
    softplus = graph.producer(dt)
    if softplus is None or softplus.op != SOFTPLUS or graph.sole_consumer(dt) is not scan:
        return None
    return softplus


def _lend_bias(graph: OpGraph, dt: Value) -> tuple[OpGraph, str | None]:
    """Let the projection of dt leave its bias to the scan."""
    projection = graph.producer(dt)
    if projection is None or not isinstance(projection.op, Linear | HeadLinear) or not projection.op.bias:
        return graph, None
    if graph.sole_consumer(dt) is None:
        return graph, None
    lending = replace(projection, op=replace(projection.op, bias_elsewhere=True))
    nodes = tuple(lending if node is projection else node for node in graph.nodes)
    return replace(graph, nodes=nodes), f"{projection.op.path}.bias"


def _gate(graph: OpGraph, y: Value) -> tuple[Node, Node] | None:
    """The product of y with silu(z), and that silu."""
    product = graph.sole_consumer(y)
    if product is None or not isinstance(product.op, Mul):
        return None
    other = next((value for value in product.inputs if value is not y), None)
    activation = graph.producer(other) if other is not None else None
    if other is None or activation is None or activation.op != SILU or graph.sole_consumer(other) is not product:
        return None
    return product, activation
