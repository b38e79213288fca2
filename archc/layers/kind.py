"""What a layer kind is: a frozen dataclass of fields, and a forward program over ops. One file a kind.

A kind or a part (a norm, a head grouping, a router) registers its word by being defined; `archc.layers` imports every
file beside it, so that a new kind is a new file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from fractions import Fraction
from typing import Any, ClassVar, Literal, get_type_hints

from archc.ir.body import Body
from archc.ir.values import Value
from archc.ops.pointwise import Scale


@dataclass(frozen=True, kw_only=True)
class Part:
    """A value that has fields of its own: `rms(eps=1e-6)`, `gqa(32, 8)`, `rope(theta=1e4)`.

    Subclasses of one family (`Norm`, `Heads`) are alternatives for a field of that type.
    """

    keyword: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Part]]] = {}

    def __init_subclass__(cls, keyword: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if keyword:
            cls.keyword = keyword
            Part.known[keyword] = cls


@dataclass(frozen=True, kw_only=True)
class Norm(Part):
    """A normalisation over channels."""

    eps: Fraction = field(default=Fraction(1, 100_000), metadata={"doc": "added to the variance", "above": 0})

    def apply(self, b: Body, path: str, x: Value) -> Value:
        raise NotImplementedError


# Where a sublayer f is normed: h + f(norm(h)); norm(h + f(h)); h + norm(f(h)); h + norm(f(norm(h))).
Placement = Literal["pre", "post", "out", "sandwich"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys and values that one layer makes and others may attend to."""

    n_kv_heads: int
    d_head: int
    d_head_v: int
    window: int | None  # how many tokens are kept; all unless given


@dataclass(frozen=True, kw_only=True)
class Kind(ABC):
    """A layer kind. `forward` is the only description of what it computes, holds and costs."""

    keyword: ClassVar[str] = ""
    scope: ClassVar[str] = ""
    known: ClassVar[dict[str, type[Kind]]] = {}

    def __init_subclass__(cls, keyword: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        if keyword:
            cls.keyword = keyword
            Kind.known[keyword] = cls

    in_scale: Fraction | None = field(default=None, metadata={"doc": "factor on what the branch reads", "late": True})
    out_scale: Fraction | None = field(default=None, metadata={"doc": "factor on what the branch adds", "late": True})
    out_norm: Norm | None = field(default=None, metadata={"doc": "norm of what the branch adds", "late": True})
    placement: Placement | None = field(
        default=None, metadata={"doc": "where its sublayer is normed; as residual(norm=...) unless given", "late": True}
    )

    @abstractmethod
    def forward(self, b: Body, h: Value) -> Value:
        """The program: `h [B, T, d_model]` to the branch's output of the same shape."""

    def problems(self, d_model: int) -> list[Problem]:
        """What is wrong with these field values, each tied to the fields that cause it."""
        return []

    @property
    def adaptable(self) -> tuple[str, ...]:
        """The projections that its field `lora` may adapt."""
        return ()

    def keys(self, d_model: int) -> Keys | None:
        """The keys and values that it makes, and so hands on to layers that reuse them."""
        return None

    def reused_keys(self, d_model: int) -> Keys | None:
        """Those that it takes from the nearest layer before it that makes some."""
        return None

    def run(self, b: Body, name: str, h: Value) -> Value:
        """Append this kind to a layer as its submodule `name`."""
        program = type(self).forward.__code__
        with b.scope(name, type(self).__name__, type(self).__doc__ or "", self, program):
            if self.in_scale is not None:
                h = b.call_it(b.one(Scale(factor=float(self.in_scale)), h), "h")
            y = self.forward(b, h)
            if self.out_norm is not None:
                y = b.call_it(self.out_norm.apply(b, "out_norm", y), "y")
            if self.out_scale is not None:
                y = b.one(Scale(factor=float(self.out_scale)), y)
            return y


@dataclass(frozen=True, kw_only=True)
class Mixer(Kind):
    """A token mixer: the first half of a layer."""

    scope: ClassVar[str] = "mixer"


@dataclass(frozen=True, kw_only=True)
class ChannelMixer(Kind):
    """A channel mixer: the second half of a layer, or an expert."""

    scope: ClassVar[str] = "mlp"


@dataclass(frozen=True, slots=True)
class Problem:
    """A semantic error of a kind: `fields` are the ones to point at, the first of them with the caret.

    A field is a path into the kind (`heads.n_kv_heads`); where it was not said, what holds it is pointed at. `because`
    are further places with a few words each; `spec.d_model` among them is the setting, not a field.
    """

    code: str
    message: str
    fields: tuple[str, ...]
    label: str = ""
    help: str | None = None
    because: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """A field as the language sees it.

    Its metadata: `doc`, what it is; `example`, as it is written; `setting`, which setting it defaults to; `above`, a
    bound that its value exceeds; `tokens`, whether it counts them; `late`, whether it comes behind the kind's own.
    """

    name: str
    attribute: str  # the name in Python: `in` is `in_`
    type: Any
    required: bool
    metadata: Mapping[str, Any]

    @property
    def doc(self) -> str:
        return str(self.metadata.get("doc", ""))


_fields: dict[type[Kind] | type[Part], dict[str, FieldInfo]] = {}


def fields_of(cls: type[Kind] | type[Part]) -> dict[str, FieldInfo]:
    """The fields of a kind or part, in order."""
    if cls not in _fields:
        hints = get_type_hints(cls)
        own_first = sorted(fields(cls), key=lambda f: bool(f.metadata.get("late")))
        infos = [
            FieldInfo(f.name.rstrip("_"), f.name, hints[f.name], f.default is MISSING, f.metadata) for f in own_first
        ]
        _fields[cls] = {info.name: info for info in infos}
    return _fields[cls]
