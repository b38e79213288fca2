"""The classes of the emitted model: weights, initialisation, forward program and cache of each module.

Equal scopes (the same kind with the same fields) share a class. The layer itself is a class that takes its mixer and
channel mixer as arguments, so that one `Layer` serves every combination with the same skeleton.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from archc.codegen.caches import cache_view
from archc.codegen.class_view import STATELESS, ClassView, merged, skeleton_of, variant
from archc.codegen.members import members
from archc.codegen.programs import BODY, USE, Names, Part, Program, annotation, parts
from archc.ir.graph import Layer

LAYER = "Layer"


@dataclass
class Classes:
    """All classes of one model, in the order in which they are met."""

    names: Names
    by_identity: dict[object, ClassView] = field(default_factory=dict)
    layers: list[ClassView] = field(default_factory=list)
    uses: dict[str, ClassView] = field(default_factory=dict)
    of_layer: dict[Layer, tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    def add(self, layer: Layer) -> None:
        """Make the classes that a layer needs."""
        part = parts(layer.graph, layer.scopes)
        children = [self.scope(child) for child in part.children]
        index = self._skeleton(part, children)
        made = [_made(child, view) for child, view in zip(part.children, children, strict=True)]
        self.of_layer[layer] = (index, tuple(made))

    def construct(self, layer: Layer) -> str:
        """`Layer(Mamba(), MoE())`."""
        index, children = self.of_layer[layer]
        return f"{self.layers[index].name}({', '.join(children)})"

    def scope(self, part: Part) -> ClassView:
        """The class of a scope, made once for each distinct kind and fields."""
        assert part.scope is not None
        if part.scope.identity not in self.by_identity:
            children = [self.scope(child) for child in part.children]
            name = self._free_name(part.scope.class_name)
            made = [f"self.{c.name} = {v.name}()" for c, v in zip(part.children, children, strict=True)]
            view = self._class(part, name, part.scope.doc, children, made)
            self.by_identity[part.scope.identity] = view
        return self.by_identity[part.scope.identity]

    def _layer_class(self, part: Part, children: list[ClassView], name: str) -> ClassView:
        made = []
        for child, view in zip(part.children, children, strict=True):
            made += self._slot(child, view)
        doc = " and ".join(child.name for child in part.children)
        view = self._class(part, name, f"One layer: {doc}, behind their norms.", children, made)
        slots = tuple((c.name, v.name) for c, v in zip(part.children, children, strict=True))
        if view.cache_type is None:
            positions = () if part.positional else ("positions: Tensor | None = None",)
            view = replace(view, cache_type=STATELESS, parameters=(*view.parameters, *positions))
        return replace(view, children=slots)

    def _skeleton(self, part: Part, children: list[ClassView]) -> int:
        """The index of the layer class with this skeleton; its slots take in the new children."""
        view = self._layer_class(part, children, LAYER)
        for i, known in enumerate(self.layers):
            if skeleton_of(known) == skeleton_of(view):
                self.layers[i] = merged(known, view)
                return i
        name = variant(LAYER, {known.name for known in self.layers})
        self.layers.append(self._layer_class(part, children, name))
        return len(self.layers) - 1

    def _class(self, part: Part, name: str, doc: str, children: list[ClassView], made: list[str]) -> ClassView:
        own = members([node for node in part.own if not (part.shared and node.per_use)], self.names)
        view = ClassView(
            name=name,
            doc=doc,
            base=own.base,
            packs=own.packs,
            declared=tuple(f"{c.name}: {v.name}" for c, v in zip(part.children, children, strict=True) if _root(c)),
            constructor=(*own.constructor, *(f"{' ' * BODY}{line}" for line in made), *own.closing),
            parameters=self._parameters(part),
            result=self._result_type(part),
            body=Program(part, self.names).body(),
            initialise=(*own.initialise, *map(_init_weights, _owned_children(part))),
        )
        return self._with_cache(view, part, children)

    def use_class(self, part: Part) -> ClassView:
        """The class of the weights that each use of a shared part brings."""
        name = f"{self._shared_name(part)}Use"
        if name not in self.uses:
            own = members([node for node in part.own if node.per_use], self.names)
            below = [child for child in part.children if child.per_use]
            made = [f"{' ' * BODY}self.{child.name} = {self.use_class(child).name}()" for child in below]
            self.uses[name] = ClassView(
                name=name,
                doc=f"What each use of {name.removesuffix('Use')} has for itself.",
                base=own.base,
                packs=own.packs,
                constructor=(*own.constructor, *made, *own.closing),
                initialise=(*own.initialise, *(_init_weights(child.name) for child in below)),
            )
        return self.uses[name]

    def _shared_name(self, part: Part) -> str:
        assert part.shared is not None
        names = (part.shared.name, *part.path.split(".")[1:])
        return "".join(word.capitalize() for name in names for word in name.split("_"))

    def _slot(self, child: Part, view: ClassView) -> list[str]:
        """Constructor lines for a child that is handed in; a shared one is referred to but stored by the model."""
        if not _root(child):
            return [f"self.{child.name} = {child.name}"]
        lines = [f'object.__setattr__(self, "{child.name}", {child.name})  # the model stores it, not each user']
        if child.per_use:
            lines.append(f"self.{child.name}_{USE} = {self.use_class(child).name}()")
        return lines

    def _parameters(self, part: Part) -> tuple[str, ...]:
        """Parameters of forward, after self and without the cache, whose type depends on all layers."""
        parameters = []
        for name, value in zip(Program(part, self.names).parameter_names(), part.inputs, strict=True):
            optional = value.name == "delta" or value.type == "kv"  # there are none before the first layer
            parameters.append(f"{name}: {annotation(value, self.names)}{' | None' if optional else ''}")
        if part.per_use:
            parameters.append(f"{USE}: {self.use_class(part).name}")
        if part.positional:
            parameters.append("positions: Tensor | None = None")
        return tuple(parameters)

    def _result_type(self, part: Part) -> str:
        """What forward returns; keys and values that a part merely hands on may be none."""
        types = [annotation(v, self.names) + " | None" * (v.type == "kv" and v in part.inputs) for v in part.outputs]
        return types[0] if len(types) == 1 else f"tuple[{', '.join(types)}]"

    def _with_cache(self, view: ClassView, part: Part, children: list[ClassView]) -> ClassView:
        own = [state for node in part.own for state in node.op.state()]
        stateful = [(c.name, v.cache_type) for c, v in zip(part.children, children, strict=True) if v.cache_type]
        if not own and not stateful:
            return view
        if not own and len(stateful) == 1:
            ((name, cache_type),) = stateful
            return replace(view, cache_type=cache_type, cache_child=name)
        cache = cache_view(view.name, own, stateful, self.names)
        return replace(view, cache_type=cache.name, cache=cache)

    def _free_name(self, stem: str) -> str:
        return variant(stem, {view.name for view in self.by_identity.values()})


def _root(part: Part) -> bool:
    """Whether a part is a shared module itself, and not merely inside one."""
    return part.scope is not None and part.scope.shared is not None


def _init_weights(child: str) -> str:
    return f"{' ' * BODY}self.{child}.init_weights()"


def _owned_children(part: Part) -> list[str]:
    """The submodules that a module initialises."""
    names = []
    for child in part.children:
        if not _root(child):
            names.append(child.name)
        elif child.per_use:
            names.append(f"{child.name}_{USE}")
    return names


def _made(child: Part, view: ClassView) -> str:
    """The constructor argument of a layer for one child."""
    shared = child.scope.shared if child.scope else None
    return f"{view.name}()" if shared is None else f"{shared.name}[{shared.copy}]"
