"""One class of the emitted model as it will be printed, and how layers of one skeleton become one class."""

from __future__ import annotations

from dataclasses import dataclass, replace

from archc.codegen.caches import CacheView
from archc.codegen.layout import definition

STATELESS = "None"  # cache type of a layer that keeps nothing, among layers that do


@dataclass(frozen=True)
class ClassView:
    """One class to print. `children` are constructor arguments (name, type)."""

    name: str
    doc: str
    base: str
    packs: tuple[str, ...]
    constructor: tuple[str, ...]
    initialise: tuple[str, ...]
    children: tuple[tuple[str, str], ...] = ()
    declared: tuple[str, ...] = ()  # attributes that the constructor cannot declare by assigning
    parameters: tuple[str, ...] = ()
    result: str = ""
    body: tuple[str, ...] = ()
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


def merged(known: ClassView, other: ClassView) -> ClassView:
    """One layer class for two sets of children: every type becomes the union."""
    slots = tuple((n, _union(a, b)) for (n, a), (_, b) in zip(known.children, other.children, strict=True))
    known = replace(known, children=slots)
    if known.cache is None or other.cache is None:
        cache_type = _union(known.cache_type, other.cache_type) if known.cache_type and other.cache_type else None
        return replace(known, cache_type=cache_type)
    pairs = zip(known.cache.fields, other.cache.fields, strict=True)
    fields = tuple(replace(a, type=_union(a.type, b.type)) for a, b in pairs)
    return replace(known, cache=replace(known.cache, fields=fields))


def skeleton_of(view: ClassView) -> tuple[object, ...]:
    """What two layer classes have to share to be one."""
    return view.constructor, view.body, view.initialise, view.parameters, view.cache_type == STATELESS, view.cache_child


def _union(left: str, right: str) -> str:
    return " | ".join(dict.fromkeys([*left.split(" | "), *right.split(" | ")]))


def variant(stem: str, taken: set[str]) -> str:
    """`Attention`, then `AttentionB`, `AttentionC`: a digit would read as another kind (Mamba2)."""
    letters = "".join(map(chr, range(ord("B"), ord("Z") + 1)))
    names = (stem, *(stem + "Z" * turn + letter for turn in range(400) for letter in letters))
    return next(name for name in names if name not in taken)
