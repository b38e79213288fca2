"""Layers that attend to the keys and values of an earlier one (`kv=prev`): whose they are, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from archc.diagnostics import Diagnostic, Span, error
from archc.elaborate.assemble import LayerPlan, build_layer
from archc.ir.graph import Layer, Repeat, Stack, Use, counts, map_layers
from archc.ir.values import Axis
from archc.layers.kind import Keys, Kind

Where = Callable[[Kind], Span]


def hand_on_keys(
    stack: tuple[Stack, ...], d_model: Axis, plan_of: Callable[[Layer], LayerPlan]
) -> tuple[tuple[Stack, ...], bool]:
    """The stack whose layers hand on keys and values, if one of them reuses any; and whether one does."""
    layers = list(counts(stack))
    kinds = (kind for layer in layers for kind in plan_of(layer).kinds)
    if not any(kind.reused_keys(d_model.size.value) for kind in kinds):
        return stack, False
    handing = {layer: build_layer(replace(plan_of(layer), hands_keys=True), d_model, layer.text) for layer in layers}
    return map_layers(stack, handing), True


def check_keys(
    stack: tuple[Stack, ...], d_model: int, plan_of: Callable[[Layer], LayerPlan], where: Where
) -> list[Diagnostic]:
    """Every layer that reuses keys, against the nearest one before it that makes some.

    A bracket is walked twice: in its first pass the keys come from before it, in all others from its own end.
    """
    found: dict[tuple[Kind, str], Diagnostic] = {}
    held: Keys | None = None

    def walk(elements: tuple[Stack, ...]) -> None:
        nonlocal held
        for element in elements:
            if isinstance(element, Repeat):
                for _ in range(min(element.count, 2)):
                    walk(element.body)
                continue
            assert isinstance(element, Use)
            for kind in plan_of(element.layer).kinds:
                wanted = kind.reused_keys(d_model)
                if wanted is not None and (finding := _misfit(wanted, held, where(kind))) is not None:
                    found.setdefault((kind, finding.message), finding)
                held = kind.keys(d_model) or held

    walk(stack)
    return list(found.values())


def _misfit(wanted: Keys, held: Keys | None, at: Span) -> Diagnostic | None:
    if held is None:
        message = "no layer before this one makes keys and values to reuse"
        return error("no-earlier-keys", message, at, help="put an attention layer without kv=prev before it")
    if replace(held, window=None) != replace(wanted, window=None):
        message = f"it reads {_shape(wanted)}, and the nearest layer before it makes {_shape(held)}"
        return error("no-earlier-keys", message, at, help="give both the same key/value heads and widths")
    if held.window is not None and (wanted.window is None or wanted.window > held.window):
        message = f"the layer whose keys it reads keeps {held.window:,} tokens, and it wants to see more"
        return error("no-earlier-keys", message, at, help=f"give it window({held.window}), or less")
    return None


def _shape(keys: Keys) -> str:
    widths = f"{keys.d_head}" if keys.d_head == keys.d_head_v else f"{keys.d_head} and {keys.d_head_v}"
    return f"{keys.n_kv_heads} key/value head{'s' * (keys.n_kv_heads > 1)} of {widths}"
