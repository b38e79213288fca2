"""Characters that the language does not use: what they are, and what was probably meant."""

from __future__ import annotations

import unicodedata

from archc.diagnostics import Diagnostic, error
from archc.grammar.lexemes import Lexeme

# Signs that word processors, other languages and papers use for one of ours.
_SIGNS = {
    "×": "x", "–": "-", "—": "-", "−": "-", "‐": "-", "·": "*", "÷": "/", "∕": "/", "∥": "||", "‖": "||", "←": "<-",
    "≤": "<", "≥": ">", "‹": "<", "›": ">", "〈": "<", "〉": ">", "⟨": "<", "⟩": ">", "…": "..", "‥": "..",
}  # fmt: skip

# Letters of other alphabets that look like a Latin one (Unicode's confusables, those a keyboard offers).
_LETTERS = dict(
    zip("аеорсухіјѕԁһѵкмтвнАВЕКМНОРСТХІЈЅ" + "οναιρτυκχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
        "aeopcyxijsdhvkmtbhABEKMHOPCTXIJS" + "ovaiptukxABEZHIKMNOPTYX", strict=True)
)  # fmt: skip

_WAYS = {
    "&": "words side by side belong together; parallel mixers are joined by `||`",
    "|": "parallel mixers are joined by `||`",
    ":": "a setting is its name and its value: `vocab 65536`; a field is `name=value`",
    "{": "layers stand between `<` and `>`, fields between `(` and `)`",
    "}": "layers stand between `<` and `>`, fields between `(` and `)`",
    '"': "names stand without quotes: `model jamba_v0_1`",
    "'": "names stand without quotes: `model jamba_v0_1`",
    "“": "names stand without quotes: `model jamba_v0_1`",
    "”": "names stand without quotes: `model jamba_v0_1`",
    "‘": "names stand without quotes: `model jamba_v0_1`",
    "’": "names stand without quotes: `model jamba_v0_1`",
    "^": "write powers as products, as `2*2*2`, or with a unit, as `64Ki`",
    "%": "write shares as fractions, as `1/8`",
    "!": "switch something off with `none`, as `mlp none`",
    ".": "a range is two dots, as `4..7`; names hold letters, digits and `_` only",
    "\\": "a statement continues on lines that are indented deeper; no sign is needed",
}


_PAIRS = {
    "->": "a layer is fed from its right: `mamba2 <- g`",
    "=>": "a layer is fed from its right: `mamba2 <- g`",
    "==": "write `=`",
    ":=": "write `=`",
    "&&": "parallel mixers are joined by `||`",
    "//": "a comment begins with `#`",
    "/*": "a comment begins with `#`",
}

_MEANT = {"==": "=", ":=": "=", "&&": "||", "&": "||", "|": "||", "{": "<", "}": ">"}


def explain_sign(lexeme: Lexeme) -> Diagnostic:
    """A character that is no part of the language."""
    char = lexeme.text[0]
    if is_invisible(char):
        return explain_invisible(lexeme)
    plain = _plain(char)
    way_out = f"write `{plain}`" if plain else _WAYS.get(char)
    return error("unexpected-character", f"{_shown(char)} is not part of the language", lexeme.span, help=way_out)


def explain_pair(lexeme: Lexeme) -> Diagnostic:
    """A sign of two characters that other languages use."""
    sign = lexeme.text[:2]
    return error("unexpected-character", f"`{sign}` is not part of the language", lexeme.span, help=_PAIRS[sign])


def plain_sign(lexeme: Lexeme) -> str | None:
    """The sign of the language that a bad one was probably meant to be."""
    return _MEANT.get(lexeme.text[:2]) or _plain(lexeme.text[0])


def explain_word(lexeme: Lexeme) -> Diagnostic:
    """A word that holds letters or digits outside ASCII."""
    foreign = next(char for char in lexeme.text if char > "\x7f")
    plain = "".join(char if char < "\x80" else _plain(char) or "?" for char in lexeme.text[:80])
    known = "?" not in plain and len(lexeme.text) <= 80
    return error(
        "foreign-letter",
        "names and numbers are written in the letters a-z, A-Z, `_` and the digits 0-9",
        lexeme.span,
        f"holds {_shown(foreign)}",
        help=f"write `{plain}`" if known else None,
    )


def explain_invisible(lexeme: Lexeme) -> Diagnostic:
    """A control, zero-width or direction-changing character: what is read is not what is seen."""
    return error(
        "invisible-character",
        f"the text holds {_shown(lexeme.text[0])}, which cannot be seen",
        lexeme.span,
        help="remove it" + ("; is this a text file?" if lexeme.text[0] == "\0" else ""),
    )


def is_invisible(char: str) -> bool:
    """Whether `char` draws nothing of its own, or changes the order in which its neighbours are drawn."""
    return char not in "\n\t" and (unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or char == "\u00a0")


def _plain(char: str) -> str | None:
    """The ASCII text that `char` stands for or looks like, if there is one."""
    if char.isascii():
        return None
    if char in _SIGNS or char in _LETTERS:
        return _SIGNS.get(char) or _LETTERS[char]
    digit = unicodedata.digit(char, None)
    if digit is not None:
        return str(digit)
    folded = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return folded if folded.isprintable() and folded.strip() else None


def _shown(char: str) -> str:
    if char.isascii() and char.isprintable():
        return f"`{char}`"
    number = f"U+{ord(char):04X} {unicodedata.name(char, '')}".rstrip()
    return f"`{char}` ({number})" if char.isprintable() and not is_invisible(char) else number
