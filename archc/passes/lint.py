"""What is legal and yet unwise: sizes that a plan or a device cannot cut well. Each finding has a reason and a way out.

Only properties of ops are read: shapes of weights and states, what looks at pairs of tokens, what knows positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from archc.ir.graph import Graph, Layer, Node, Repeat, Stack, op_graphs
from archc.ir.values import numel
from archc.passes.accelerators import Accelerator
from archc.passes.grouping import chooses
from archc.passes.plan import Plan
from archc.passes.stages import length
from archc.passes.workload import DTYPE_BYTES, Workload

ALIGNED_BYTES = 16  # that a tensor core's operands begin at a multiple of; other products take slower kernels
VOCAB_MULTIPLE = 64  # rows of the head in a tile of the least size that is fast
TILE = 64  # queries, and keys, of the smallest tile that attention kernels are written for
FP32_BYTES = 4
INT32 = 2**31


@dataclass(frozen=True, slots=True)
class Lint:
    """A finding: `setting` names what the spec sets, `scope` the module of `layer` that it is about, if either does."""

    code: str
    message: str
    help: str
    setting: str = ""
    layer: Layer | None = None
    scope: str = ""


def lint(graph: Graph, workload: Workload, plan: Plan, device: Accelerator | None) -> tuple[Lint, ...]:
    """Findings about a model as the spec says it, each once, in the order of the layers."""
    found = [*_of_model(graph, workload), *_of_stack(graph, workload, plan)]
    for layer in _in_order(graph.stack):
        for node in layer.graph.nodes:
            for lint in (*_of_plan(node, layer, plan), *_of_device(node, device), *_of_tiles(node, layer, workload)):
                found.append(Lint(lint.code, lint.message, lint.help, "", layer, node.scope))
    first: dict[tuple[str, str], Lint] = {}
    for lint in found:
        first.setdefault((lint.code, lint.message), lint)
    return tuple(first.values())


def _of_model(graph: Graph, workload: Workload) -> Iterator[Lint]:
    vocab = graph.settings.vocab.size.value
    if vocab % VOCAB_MULTIPLE:
        padded = -(-vocab // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
        message = f"a vocabulary of {vocab:,} leaves the last tile of the head partly empty"
        yield Lint("unpadded-vocab", message, f"pad it to {padded:,}, a multiple of {VOCAB_MULTIPLE}", "vocab")
    most = max(
        (numel(value.axes).at(workload.sequences) for program in op_graphs(graph) for node in program.nodes
         for value in node.outputs if value.type == "activation"),
    )  # fmt: skip
    if most >= INT32:
        message = f"a tensor of {most:,} elements is beyond what 32-bit offsets reach"
        help = "the generated kernels have 64-bit offsets, those of other libraries may not: a smaller batch or context"
        yield Lint("int32-offsets", message, help)
    mixing = ((x, node) for x in _in_order(graph.stack) for node in x.graph.nodes if node.op.mixes_tokens)
    for layer, node in islice(mixing, 1):
        if _looks_at_pairs(node) and not _knows_positions(layer, node):
            message = "the first layer that mixes tokens is attention that knows no positions"
            help = "give it rope, or let a recurrence or a convolution come first: they tell tokens by their order"
            yield Lint("no-positions", message, help, "", layer, node.scope)


def _of_stack(graph: Graph, workload: Workload, plan: Plan) -> Iterator[Lint]:
    layers = length(graph.stack)
    if layers % plan.pp:
        message = f"{layers:,} layers do not make {plan.pp} equal stages: others wait for the longest"
        yield Lint("uneven-plan", message, _one_of("pp", layers, plan.pp))
    pieces = {"cp": plan.cp * 2 if plan.cp > 1 else 1, "tp": plan.tp}
    for name, n in pieces.items():
        if workload.context % n:
            message = (
                f"{workload.context:,} tokens do not cut into {n} equal pieces, as {name} {getattr(plan, name)} does"
            )
            yield Lint("uneven-plan", message, f"take a context that is a multiple of {n}", "context")


def _of_plan(node: Node, layer: Layer, plan: Plan) -> Iterator[Lint]:
    for what, n, degree, name in _cut(node, layer, plan):
        if n % degree and not (what == KV_HEADS and degree % n == 0):
            yield Lint("uneven-plan", f"{n:,} {what} cannot be cut by {name} {degree}", _one_of(name, n, degree))


KV_HEADS = "key/value heads"


def _cut(node: Node, layer: Layer, plan: Plan) -> Iterator[tuple[str, int, int, str]]:
    """What a plan cuts of a node: what it is, how many there are, and by how much."""
    for weight in node.op.weights():
        if weight.active != 1:
            yield "experts", weight.axes[0].size.value, plan.ep, "ep"
    if _looks_at_pairs(node):
        yield "query heads", node.inputs[0].axes[-2].size.value, plan.tp, "tp"
    for state in node.op.state():
        if state.kind == "kv" and len(state.axes) > 2:
            yield KV_HEADS, state.axes[1].size.value, plan.tp, "tp"
        if state.kind == "ssm":
            yield (
                state.axes[0].name.removeprefix("n_").replace("d_inner", "channels"),
                state.axes[0].size.value,
                plan.tp,
                "tp",
            )
    if node.op.matmul and not node.op.state() and not chooses(node, layer.graph.nodes):
        for weight in node.op.weights():
            rows = weight.axes[-2] if len(weight.axes) > 1 and weight.axes[-2] != layer.graph.inputs[0].width else None
            if rows is not None and weight.active == 1:
                yield f"rows of {weight.path}", rows.size.value, plan.tp, "tp"


def _of_device(node: Node, device: Accelerator | None) -> Iterator[Lint]:
    if device is None or not device.shared:
        return
    needed, what = 0, ""
    if _looks_at_pairs(node):
        q, v = node.inputs[0].width.size.value, node.outputs[0].width.size.value
        needed, what = (
            2 * TILE * (2 * q + v),
            f"heads of {max(q, v)}: a tile of {TILE} queries, keys and values in bf16",
        )
    if needed > device.shared:
        message = f"{what} takes {needed:,} bytes of shared memory, and {device.name} has {device.shared:,}"
        yield Lint("tile-too-large", message, "more and narrower heads, or a device with more")


def _of_tiles(node: Node, layer: Layer, workload: Workload) -> Iterator[Lint]:
    multiple = ALIGNED_BYTES // DTYPE_BYTES[workload.weights] or 1
    if not node.op.matmul or node.op.state() or chooses(node, layer.graph.nodes):
        return
    for weight in node.op.weights():
        for axis in weight.axes[-2:]:
            n = axis.size.value
            if len(weight.axes) > 1 and n > multiple and n % multiple:
                message = f"a matrix with a side of {n:,}, no multiple of {multiple}, runs on unaligned kernels"
                low, high = n // multiple * multiple, -(-n // multiple) * multiple
                yield Lint("uneven-tiles", message, f"{low:,} and {high:,} are near")


def _looks_at_pairs(node: Node) -> bool:
    return bool(node.op.pair_flops(node.inputs, node.outputs).at())


def _knows_positions(layer: Layer, node: Node) -> bool:
    """Whether any op that its operands come from reads positions."""
    wanted = set(node.inputs)
    for earlier in reversed(layer.graph.nodes[: layer.graph.nodes.index(node)]):
        if wanted & set(earlier.outputs):
            if earlier.op.positional:
                return True
            wanted |= set(earlier.inputs)
    return False


def _one_of(name: str, n: int, near: int) -> str:
    """The divisors of `n` around `near`, as values for an option."""
    divisors = [d for d in range(1, min(n, 4 * near) + 1) if n % d == 0]
    return f"{name} may be {', '.join(map(str, divisors[-6:]))}"


def _in_order(stack: tuple[Stack, ...]) -> Iterator[Layer]:
    """Layers in order of first execution, each pass of a repeat once."""
    for element in stack:
        if isinstance(element, Repeat):
            yield from _in_order(element.body)
        else:
            yield element.layer
