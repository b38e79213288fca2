"""Training FLOPs of one sequence as other projects count them, so that utilisation can be compared with their logs.

megatron   Megatron-LM, `num_floating_point_operations`: three times the forward products. Attention is half of the full
           square whatever its window; a recurrence is 7 for each element of its state and token; routers, convolutions
           and adapters' scaling count nothing.
torchtitan torchtitan, `get_moe_model_nparams_and_flops`: 6 for each active parameter that is stored, without the
           embedding unless it is the head as well, and the full square of attention.
palm       PaLM, arXiv:2204.02311, appendix B: 6 N + 12 L H Q T a token, N with the embedding. N is active parameters.

The published functions know Transformers, and Megatron's Mamba-2 (whose inner width they take to be 2 d_model). Their
rules are applied to what the graph holds; where sizes are those that they assume, the numbers are theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from archc.ir.graph import Graph, Node
from archc.ir.size import Size, add, mul
from archc.ir.values import TIME
from archc.passes.flops import TRAINING_FACTOR, ModelFlops
from archc.passes.grouping import Group, chooses, groups
from archc.passes.params import Params
from archc.passes.workload import Workload

Convention = Literal["archc", "megatron", "torchtitan", "palm"]
MEGATRON_STATE_FLOPS = 7  # per element of state and token, `mamba_layer_flops`
PER_PARAMETER = 6  # forward 2, backward 4 (Kaplan et al., arXiv:2001.08361)


def training_flops(convention: Convention, graph: Graph, workload: Workload, params: Params, flops: ModelFlops) -> int:
    """Training FLOPs of one sequence of `workload.context` tokens, forward and backward, of `graph` as elaborated."""
    if convention == "archc":
        return TRAINING_FACTOR * flops.total.model // workload.batch
    if convention == "megatron":
        return TRAINING_FACTOR * _over(graph, workload, _megatron_forward)
    without = params.embedding if convention == "torchtitan" and not graph.settings.tied else 0
    by_parameters = PER_PARAMETER * workload.context * (params.active - without)
    return by_parameters + TRAINING_FACTOR * _over(graph, workload, _square)


def _over(graph: Graph, workload: Workload, count: Callable[[Node, Group], Size]) -> int:
    """The sum of `count` over every use of every op, for one sequence."""
    sequence = {**workload.sequences, "B": 1}
    return sum(group.times * sum(count(node, group).at(sequence) for node in group.nodes) for group in groups(graph))


def _square(node: Node, group: Group) -> Size:
    """Every query with every key, masked or not."""
    return mul(TIME.symbol, TIME.symbol, node.op.pair_flops(node.inputs, node.outputs))


def _megatron_forward(node: Node, group: Group) -> Size:
    states = [state.numel for state in node.op.state() if state.kind == "ssm"]
    if states:
        return mul(MEGATRON_STATE_FLOPS, TIME.symbol, add(*states))
    square = _square(node, group)
    if square.at({"T": 1}):
        matrices = [weight.numel for weight in node.op.weights() if len(weight.axes) > 1]
        return add(square // 2, mul(2, TIME.symbol, sum(matrices)))
    if not node.op.matmul or chooses(node, group.nodes):
        return mul(0)
    return node.op.flops(node.inputs, node.outputs).model
