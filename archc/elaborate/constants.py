"""Constant expressions: exact fractions over numbers, settings and a few functions."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor, isqrt, sqrt

from archc.diagnostics import DiagnosticError, Span, error, nearest
from archc.grammar.tree import Binary, Expr, ListExpr, Name, Negative, NoneLiteral, Number

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
    "min": min,
    "max": max,
}
LIMIT = 10**30  # no quantity of a model is larger; keeps every intermediate small


def evaluate(expr: Expr, lookup: Lookup) -> Fraction:
    """The value of `expr`; names are settings, answered by `lookup`. Raises DiagnosticError."""
    match expr:
        case Number():
            return expr.value
        case Negative():
            return -evaluate(expr.operand, lookup)
        case Binary():
            return _binary(expr, evaluate(expr.left, lookup), evaluate(expr.right, lookup))
        case Name(args=None):
            return lookup(expr)
        case Name():
            return _call(expr, lookup)
        case NoneLiteral():
            raise DiagnosticError(error("not-a-number", "`none` is not a number", expr.span, "expected a number"))
        case ListExpr():
            raise DiagnosticError(error("not-a-number", "a list is not a number", expr.span, "expected a number"))


def _binary(expr: Binary, left: Fraction, right: Fraction) -> Fraction:
    if expr.op == "/" and right == 0:
        raise DiagnosticError(error("division-by-zero", "a constant divides by zero", expr.right.span, "this is 0"))
    operations: dict[str, Callable[[], Fraction]] = {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "/": lambda: left / right,
    }
    result = operations[expr.op]()
    if abs(result.numerator) > LIMIT or result.denominator > LIMIT:
        raise DiagnosticError(error("number-too-large", "a constant leaves the range of 30 digits", expr.span))
    return result


def _call(expr: Name, lookup: Lookup) -> Fraction:
    name, args = expr.ident.name, expr.args or ()
    if name not in FUNCTIONS:
        near = nearest(name, FUNCTIONS)
        raise DiagnosticError(
            error(
                "unknown-function",
                f"there is no function `{name}`",
                expr.ident.span,
                help=f"did you mean `{near}`?" if near else f"there are {', '.join(FUNCTIONS)}",
            )
        )
    values = [_argument(arg.value, arg.span, lookup) for arg in args if arg.name is None]
    takes_many = name in ("min", "max")
    if len(values) != len(args) or not values or (len(values) != 1 and not takes_many):
        wanted = "one or more numbers" if takes_many else "one number"
        raise DiagnosticError(error("wrong-arguments", f"`{name}` takes {wanted}", expr.span))
    if name == "sqrt" and values[0] < 0:
        raise DiagnosticError(error("negative-root", "there is no square root of a negative number", expr.span))
    return FUNCTIONS[name](*values)


def _argument(value: object, span: Span, lookup: Lookup) -> Fraction:
    if isinstance(value, Expr):
        return evaluate(value, lookup)
    raise DiagnosticError(error("not-a-number", "a function takes numbers", span))
