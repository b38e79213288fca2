"""The classes of the emitted model: weights, initialisation, forward program and cache of each module.

Equal scopes (the same kind with the same fields) share a class. The layer itself is a class that takes its mixer and
channel mixer as arguments, so that one `Layer` serves every combination with the same skeleton.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from archc.codegen.caches import CacheView, cache_view
from archc.codegen.layout import definition, statement
from archc.codegen.programs import BODY, USE, Names, Part, Program, annotation, parts
from archc.ir.graph import Layer, Node
from archc.ir.op import attribute
from archc.ir.values import Weight

ADDS = "N_RESIDUAL_ADDS"
LAYER = "Layer"
STATELESS = "None"  # cache type of a layer that keeps nothing, among layers that do


@dataclass(frozen=True)
class ClassView:
    """One class to print. `children` are constructor arguments (name, type)."""

    name: str
    doc: str
    base: str
    packs: tuple[str, ...]
    children: tuple[tuple[str, str], ...]
    declared: tuple[str, ...]  # attributes that the constructor cannot declare by assigning
    constructor: tuple[str, ...]
    parameters: tuple[str, ...]
    result: str
    body: tuple[str, ...]
    initialise: tuple[str, ...]
    cache_type: str | None = None  # what forward takes and init_cache gives
    cache: CacheView | None = None  # defined here
    cache_child: str | None = None  # or handed on to this child

    @property
    def forward(self) -> str:
        """The first lines of `forward`."""
        parameters = ["self", *self.parameters]
        if self.cache_type:
            optional = "" if self.cache_type == STATELESS else " | None"
            parameters.append(f"cache: {self.cache_type}{optional} = None")
        return definition("forward", parameters, self.result, 4)

    @property
    def init_cache(self) -> str:
        """The first lines of `init_cache`."""
        parameters = ["self", "batch: int", "context: int", "dtype: torch.dtype", "length: Tensor"]
        return definition("init_cache", parameters, str(self.cache_type), 4)


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
            if _skeleton_of(known) == _skeleton_of(view):
                self.layers[i] = _merged(known, view)
                return i
        name = variant(LAYER, {known.name for known in self.layers})
        self.layers.append(self._layer_class(part, children, name))
        return len(self.layers) - 1

    def _class(self, part: Part, name: str, doc: str, children: list[ClassView], made: list[str]) -> ClassView:
        nodes = [node for node in part.own if not (part.shared and node.per_use)]
        packs = tuple(dict.fromkeys(group for node in nodes for group in node.op.packs()))
        weights = [weight for node in nodes for weight in node.op.weights()]
        constructor = [
            *self._module_lines(nodes),
            *parameter_lines(weights),
            *(f"{' ' * BODY}{line}" for line in made),
        ]
        if packs:
            constructor.append(f"{' ' * BODY}self.pack()")
            self.names.use(".projections", "Packed")
        view = ClassView(
            name=name,
            doc=doc,
            base="Packed" if packs else "nn.Module",
            packs=tuple(_tuple(f'"{member}"' for member in group) for group in packs),
            children=(),
            declared=tuple(f"{c.name}: {v.name}" for c, v in zip(part.children, children, strict=True) if _root(c)),
            constructor=tuple(constructor),
            parameters=self._parameters(part),
            result=self._result_type(part),
            body=Program(part, self.names).body(),
            initialise=(
                *self.initialise(weights),
                *(f"{' ' * BODY}self.{name}.init_weights()" for name in _owned_children(part)),
            ),
        )
        return self._with_cache(view, part, children)

    def use_class(self, part: Part) -> ClassView:
        """The class of the weights that each use of a shared part brings."""
        name = f"{self._shared_name(part)}Use"
        if name not in self.uses:
            nodes = [node for node in part.own if node.per_use]
            weights = [weight for node in nodes for weight in node.op.weights()]
            below = [child for child in part.children if child.per_use]
            made = [f"{' ' * BODY}self.{child.name} = {self.use_class(child).name}()" for child in below]
            packs = tuple(dict.fromkeys(group for node in nodes for group in node.op.packs()))
            pack = [f"{' ' * BODY}self.pack()"] if packs else []
            self.uses[name] = ClassView(
                name=name,
                doc=f"What each use of {name.removesuffix('Use')} has for itself.",
                base="Packed" if packs else "nn.Module",
                packs=tuple(_tuple(f'"{member}"' for member in group) for group in packs),
                children=(),
                declared=(),
                constructor=(*self._module_lines(nodes), *parameter_lines(weights), *made, *pack),
                parameters=(),
                result="",
                body=(),
                initialise=(
                    *self.initialise(weights),
                    *(f"{' ' * BODY}self.{child.name}.init_weights()" for child in below),
                ),
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

    def initialise(self, weights: Iterable[Weight]) -> list[str]:
        """One call of the package's initialisations for each weight."""
        lines = []
        for weight in weights:
            arguments = [attribute(weight.path), *map(repr, weight.init.arguments)]
            if weight.init.residual_out:
                arguments[-1] += f" * {ADDS}**-0.5"
            function = self.names.use(weight.init.module, weight.init.function)
            lines.append(statement(f"{function}({', '.join(arguments)})", BODY))
        return lines

    def _module_lines(self, nodes: Iterable[Node]) -> list[str]:
        lines = []
        for module in (module for node in nodes for module in node.op.modules()):
            self.names.imports.update(module.imports)
            lines.append(statement(f"self.{module.name} = {module.constructor}", BODY, module.comment))
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


def variant(stem: str, taken: set[str]) -> str:
    """`Attention`, then `AttentionB`, `AttentionC`: a digit would read as another kind (Mamba2)."""
    letters = "".join(map(chr, range(ord("B"), ord("Z") + 1)))
    names = (stem, *(stem + "Z" * turn + letter for turn in range(400) for letter in letters))
    return next(name for name in names if name not in taken)


def _root(part: Part) -> bool:
    """Whether a part is a shared module itself, and not merely inside one."""
    return part.scope is not None and part.scope.shared is not None


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


def parameter_lines(weights: Iterable[Weight]) -> list[str]:
    """Weights that no submodule holds: parameters, and dictionaries of them."""
    lines, groups = [], set()
    for weight in weights:
        target = attribute(weight.path)
        if target == f"self.{weight.path}" and "." in weight.path:
            continue
        group = weight.path.split(".")[0]
        if "." in weight.path and group not in groups:
            groups.add(group)
            lines.append(f"{' ' * BODY}self.{group} = nn.ParameterDict()")
        sizes = ", ".join(str(axis.size.value) for axis in weight.axes)
        empty = f"torch.empty({sizes})"
        if weight.int8:
            empty = f"torch.empty({sizes}, dtype=torch.int8), requires_grad=False"
        shape = "[" + ", ".join(axis.name for axis in weight.axes) + "]"
        lines.append(statement(f"{target} = nn.Parameter({empty})", BODY, shape))
    return lines


def _merged(known: ClassView, other: ClassView) -> ClassView:
    """One layer class for two sets of children: every type becomes the union."""
    slots = tuple((n, _union(a, b)) for (n, a), (_, b) in zip(known.children, other.children, strict=True))
    known = replace(known, children=slots)
    if known.cache is None or other.cache is None:
        cache_type = _union(known.cache_type, other.cache_type) if known.cache_type and other.cache_type else None
        return replace(known, cache_type=cache_type)
    pairs = zip(known.cache.fields, other.cache.fields, strict=True)
    fields = tuple(replace(a, type=_union(a.type, b.type)) for a, b in pairs)
    return replace(known, cache=replace(known.cache, fields=fields))


def _skeleton_of(view: ClassView) -> tuple[object, ...]:
    return view.constructor, view.body, view.initialise, view.parameters, view.cache_type == STATELESS, view.cache_child


def _union(left: str, right: str) -> str:
    return " | ".join(dict.fromkeys([*left.split(" | "), *right.split(" | ")]))


def _tuple(items: Iterable[str]) -> str:
    members = list(items)
    return f"({', '.join(members)},)" if len(members) == 1 else f"({', '.join(members)})"
