"""What is legal and yet unwise about a model on devices, as warnings at the words of its spec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from archc.compiler import Model
from archc.diagnostics import Diagnostic, Span, warning
from archc.grammar.tree import Ident, Name, Setting, Share, Word
from archc.passes.grouping import sublayers
from archc.passes.lint import Lint
from archc.passes.lint import lint as found_by
from archc.passes.workload import Workload
from archc.report.sizing import Request


def lint(model: Model, workload: Workload, request: Request) -> tuple[Diagnostic, ...]:
    """Warnings, in the order of the layers."""
    found = found_by(model.graph, workload, request.plan, request.device)
    return tuple(_diagnostic(model, one) for one in found)


def _diagnostic(model: Model, found: Lint) -> Diagnostic:
    """At the setting, or at the first word that means the kind; without a place where the spec does not say it."""
    span = _setting(model, found.setting) if found.setting else _kind(model, found)
    if span is None:
        return Diagnostic(found.code, found.message, severity="warning", help=found.help)
    return warning(found.code, found.message, span, help=found.help)


def _setting(model: Model, name: str) -> Span | None:
    said = [s for s in model.spec.statements if isinstance(s, Setting) and s.ident.name == name]
    return said[-1].span if said else None


def _kind(model: Model, found: Lint) -> Span | None:
    if found.layer is None:
        return None
    root = found.scope.partition(".")[0]
    scope = next((scope for scope in sublayers(found.layer) if scope.name == root), None)
    if scope is not None and scope.shared is not None:
        shares = [statement for statement in model.spec.statements if isinstance(statement, Share)]
        return next((share.ident.span for share in shares if share.ident.name == scope.shared.name), None)
    keyword = str(getattr(scope.identity, "keyword", "")) if scope is not None else ""
    words = [word for statement in model.spec.statements for word in _words(statement)]
    return next((word.span for word in words if word.ident.name == keyword), None)


def _words(node: object) -> Iterator[Word | Name]:
    """What names a kind in a statement: words of layers, values of settings."""
    if isinstance(node, tuple):
        for item in node:
            yield from _words(item)
    elif is_dataclass(node) and not isinstance(node, Span | Ident):
        if isinstance(node, Word | Name):
            yield node
        for field in fields(node):
            yield from _words(getattr(node, field.name))
