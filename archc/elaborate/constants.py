"""Constant expressions: exact fractions over numbers, settings and a few functions."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor, isqrt, sqrt

from archc.diagnostics import DiagnosticError, Span, error, nearest
from archc.grammar.tree import Arg, Binary, Expr, ListExpr, Name, Negative, NoneLiteral, Number
from archc.layers.words import either

Lookup = Callable[[Name], Fraction]


def square_root(value: Fraction) -> Fraction:
    """Exact where the root is rational, else the nearest float's exact value."""
    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    if top * top == value.numerator and bottom * bottom == value.denominator:
        return Fraction(top, bottom)
    return Fraction(sqrt(value))


FUNCTIONS: dict[str, Callable[..., Fraction]] = {
    "sqrt": square_root,
    "ceil": lambda x: Fraction(ceil(x)),
    "floor": lambda x: Fraction(floor(x)),
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
}
LIMIT = 10**30  # no quantity of a model is larger; keeps every intermediate small


def evaluate(expr: Expr, lookup: Lookup) -> Fraction:
    """The value of `expr`; names are settings, answered by `lookup`. Raises DiagnosticError."""
    match expr:
        case Number():
            return _in_range(expr.value, expr.span)
        case Negative():
            return -evaluate(expr.operand, lookup)
        case Binary():
            return _binary(expr, evaluate(expr.left, lookup), evaluate(expr.right, lookup))
        case Name(args=None):
            return lookup(expr)
        case Name():
            return _call(expr, expr.args or (), lookup)
        case NoneLiteral():
            raise DiagnosticError(error("wrong-value", "`none` is not a number", expr.span))
        case ListExpr():
            raise DiagnosticError(error("wrong-value", "a list is not a number", expr.span))


def shown(number: Fraction) -> str:
    """A number in a sentence: whole ones exactly, others to six digits."""
    if number.denominator == 1 and abs(number) < 10**15:
        return f"{number.numerator:,}"
    return f"{float(number):g}"


def _binary(expr: Binary, left: Fraction, right: Fraction) -> Fraction:
    if expr.op == "/" and right == 0:
        hint = "divide by something else"
        raise DiagnosticError(error("division-by-zero", "nothing divides by zero", expr.right.span, "is 0", help=hint))
    operations: dict[str, Callable[[], Fraction]] = {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "/": lambda: left / right,
    }
    return _in_range(operations[expr.op](), expr.span)


def _in_range(value: Fraction, span: Span) -> Fraction:
    """`value`, if a model can have any use for it."""
    if abs(value.numerator) <= LIMIT * value.denominator and value.denominator <= LIMIT**3:
        return value
    message = "a constant leaves the range of 30 digits"
    raise DiagnosticError(error("too-large", message, span, help="check the number and its unit"))


def _call(expr: Name, args: tuple[Arg, ...], lookup: Lookup) -> Fraction:
    name = expr.ident.name
    if name not in FUNCTIONS:
        near = nearest(name, FUNCTIONS)
        hint = f"did you mean `{near}`?" if near else f"there are {either(FUNCTIONS, 'and')}"
        raise DiagnosticError(
            error("unknown-function", f"there is no function `{name}` of numbers", expr.ident.span, help=hint)
        )
    values = [_argument(arg, lookup) for arg in args]
    takes_many = name in ("min", "max")
    if not values or (len(values) != 1 and not takes_many):
        wanted = "one or more numbers" if takes_many else "one number"
        hint = f"write {name}(a, b)" if takes_many else f"write {name}(a)"
        raise DiagnosticError(error("wrong-arguments", f"`{name}` takes {wanted}", expr.span, help=hint))
    if name == "sqrt" and values[0] < 0:
        message = f"{shown(values[0])} has no square root"
        raise DiagnosticError(error("negative-root", message, args[0].span, "less than 0", help="write 0 or more"))
    return _in_range(FUNCTIONS[name](*values), expr.span)


def _argument(arg: Arg, lookup: Lookup) -> Fraction:
    if arg.name is None and isinstance(arg.value, Expr):
        return evaluate(arg.value, lookup)
    raise DiagnosticError(error("wrong-arguments", "a function takes numbers, without names", arg.span))
