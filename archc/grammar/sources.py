"""What a source must be before it is looked at: text in UTF-8, and not too much of it."""

from __future__ import annotations

from archc.diagnostics import Diagnostic, DiagnosticError, Source, Span, error

MAX_SOURCE = 64 * 1024  # characters; the longest spec of a published model has under 4,000
MAX_FINDINGS = 50  # of one source; after so many errors, more help nobody


def decode(name: str, data: bytes) -> Source:
    """The text of a file. A byte order mark and CRLF are accepted; raises DiagnosticError for what is not UTF-8."""
    if len(data) > 4 * MAX_SOURCE:  # more bytes than so many characters can take
        raise DiagnosticError(_too_large(Source(name, ""), f"{len(data):,} bytes"))
    try:
        return Source(name, data.decode("utf-8"))
    except UnicodeDecodeError as wrong:
        source = Source(name, data[: wrong.start].decode("utf-8"))
        span = Span(source, len(source.text), len(source.text))
        raise DiagnosticError(_not_text(span, f"byte 0x{data[wrong.start]:02x} is not UTF-8")) from None


def check_text(source: Source) -> None:
    """Raise DiagnosticError if the text is too long, or no text at all."""
    length = len(source.text)
    if length > MAX_SOURCE:
        raise DiagnosticError(_too_large(source, f"{length:,} characters"))
    nul = source.text.find("\0")
    if nul >= 0:
        raise DiagnosticError(_not_text(Span(source, nul, nul + 1), "a NUL character"))


def check_formatted(source: Source, text: str) -> None:
    """Raise DiagnosticError if the canonical form of `source` is longer than a source may be."""
    if len(text) > MAX_SOURCE:
        raise DiagnosticError(_too_large(source, f"{len(text):,} characters in its canonical form"))


def _too_large(source: Source, length: str) -> Diagnostic:
    beginning = Source(source.name, source.text[:200])  # enough to show, and no line of the rest is ever counted
    message = f"the source has {length}; a spec has at most {MAX_SOURCE:,} characters"
    way_out = "describe a layer once, and repeat it with `xN`"
    return error("source-too-large", message, Span(beginning, 0, 0), help=way_out)


def _not_text(span: Span, what: str) -> Diagnostic:
    return error("not-text", "the source is not a text", span, what, help="a spec is text in UTF-8")
