"""Inputs that no one means well, one a seed: mutated specs, and hostile bytes of every kind we know."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

Chance = random.Random

WORDS = """\
block let share model every offset at none x4 x0 x1000000007 top2/16 top1/2 mamba mamba2 attn moe swiglu gqa(4,2) mha(4)
window(8) rope rope(dims=3) d_state=16 d_head=64 n_heads=8 lora(2,on=[q]) router=softmax(renorm) mlp vocab d_model
norm rms tied context 4 0 1.5 1e-5 1e20 256Ki 256K 4.5Gi 1e 007 -1 sqrt(2) ceil(7/2) min(1,2) 1/0 in=concat(h,embed)
residual=none out=linear < > ( ) [ ] , = + - * / || <- -> .. ; # | & : " ' ` \\ @ $ { } ~ ^ % ! ? é × – “ ４ ٣ а
"""
PIECES = WORDS.split()
BREAKS = [
    "\n", "\n  ", "\r\n", "\r", "\t", " ", "", "\ufeff", "\u202e", "\u2028", "\u00a0", "\0", "\x1b[2J", "\ud7ff",
]  # fmt: skip
NUMBERS = [
    "0", "1", "2", "3", "7", "8", "17", "1000000007", "10" * 40, "1e30", "1e-30", "0.0", "2.5", "1Ki", "1e999999999",
]  # fmt: skip


@cache
def specs() -> tuple[str, ...]:
    """Everything that ships, and every mistake that has a page."""
    paths = [*sorted((ROOT / "specs").glob("*.arch")), *sorted((ROOT / "tests" / "errors").glob("*.arch"))]
    texts = [path.read_bytes().decode("utf-8", "replace") for path in paths]
    return tuple(text for text in texts if len(text) < 4000)


def mutated(chance: Chance) -> bytes:
    """A spec with a few words, numbers, lines or bytes replaced, doubled, moved or dropped."""
    text = chance.choice(specs())
    for _ in range(min(1 + int(chance.expovariate(0.5)), 8)):
        text = chance.choice(CHANGES)(chance, text)[:20_000]
    data = text.encode("utf-8", "surrogatepass" if chance.random() < 0.01 else "replace")
    return flipped(chance, data) if chance.random() < 0.05 else data


def _place(chance: Chance, text: str) -> tuple[int, int]:
    """A stretch of the text: mostly one word, at times a few characters or lines."""
    if not text:
        return 0, 0
    at = chance.randrange(len(text))
    match chance.randrange(4):
        case 0:
            return at, min(len(text), at + chance.randint(0, 3))
        case 1:
            return text.rfind("\n", 0, at) + 1, (text.find("\n", at) + 1) or len(text)
        case _:
            start = max(text.rfind(sign, 0, at) for sign in " \n(,<=") + 1
            ends = [end for sign in " \n),>=" if (end := text.find(sign, at)) >= 0]
            return start, max(start, min(ends, default=len(text)))


def _replaced(chance: Chance, text: str) -> str:
    start, end = _place(chance, text)
    return text[:start] + chance.choice(PIECES) + text[end:]


def _inserted(chance: Chance, text: str) -> str:
    start, _ = _place(chance, text)
    return text[:start] + chance.choice([" ", "", "\n", " "]) + chance.choice(PIECES) + " " + text[start:]


def _dropped(chance: Chance, text: str) -> str:
    start, end = _place(chance, text)
    return text[:start] + text[end:]


def _doubled(chance: Chance, text: str) -> str:
    start, end = _place(chance, text)
    return text[:end] + text[start:end] * chance.choice([1, 1, 1, 2, 50]) + text[end:]


def _moved(chance: Chance, text: str) -> str:
    start, end = _place(chance, text)
    rest = text[:start] + text[end:]
    at = chance.randint(0, len(rest))
    return rest[:at] + text[start:end] + rest[at:]


def _renumbered(chance: Chance, text: str) -> str:
    digits = [i for i, char in enumerate(text) if char.isdigit() and char.isascii()]
    if not digits:
        return text
    at = chance.choice(digits)
    return text[:at] + chance.choice(NUMBERS) + text[at + 1 :]


def _broken(chance: Chance, text: str) -> str:
    at = chance.randint(0, len(text))
    return text[:at] + chance.choice(BREAKS) + text[at:]


def _crossed(chance: Chance, text: str) -> str:
    other = chance.choice(specs())
    start, end = _place(chance, other)
    at, _ = _place(chance, text)
    return text[:at] + other[start:end] + text[at:]


CHANGES: list[Callable[[Chance, str], str]] = [
    _replaced, _replaced, _inserted, _dropped, _doubled, _moved, _renumbered, _renumbered, _broken, _crossed,
]  # fmt: skip


def flipped(chance: Chance, data: bytes) -> bytes:
    """`data` with single bytes changed."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


# --- hostile ---------------------------------------------------------------------------------------

COMPLETE = "vocab 32; d_model 64; mlp swiglu(8)\n"


def hostile(chance: Chance) -> bytes:
    """One attack on the parser, on numbers, on what repeats, on names or on text itself."""
    attack = chance.choice(ATTACKS)(chance)
    data = attack.encode("utf-8", "surrogatepass") if isinstance(attack, str) else attack
    return flipped(chance, data) if chance.random() < 0.1 else data


def _many(chance: Chance) -> int:
    """How often: mostly moderate, now and then far too often."""
    return chance.choice([2, 30, 63, 64, 65, 66, 150, 999, 1001, 5_000] + [40_000] * (chance.random() < 0.05))


def _nested(chance: Chance) -> str:
    before, inside, behind = chance.choice(
        [
            ("block ", "<", ">"), ("block ", "< mamba, <", ">>"), ("a ", "f(", ")"), ("a ", "f(x=g(", "))"),
            ("a ", "[", "]"), ("a f(", "(", ")"), ("let a = ", "< ", " > x2"), ("block <", " moe(expert=", ")"),
            ("a ", "-", ""), ("block ", "<" * 3, ">"), ("a at ", "[", "]"), ("let a = b", "(c=", ")"),
        ]
    )  # fmt: skip
    n = _many(chance)
    return before + inside * n + "a" + behind * chance.choice([n, n, n, n - 1, 0, n + 1])


def _chained(chance: Chance) -> str:
    piece = chance.choice(
        [
            "+ mamba ", "|| mamba ", "mamba, ", "<- g ", "d_state=2 ", "* 2 ", "- 1 ", "x2 ", "; ", "\n", "top1/2 ",
            "every 2 ", "at [0] ", ") ", "> ", "] ", "block < mamba >\n", "let a = mamba\n", "share g = mamba\n",
            "# c\n", "vocab 3\n", "(\n", "block <\n", "= ", "none ", "1 ", "..", "a.b ", "0x1 ",
            "''", "a\t", "model m\n",
        ]
    )  # fmt: skip
    return chance.choice([COMPLETE + "block < mamba ", "a 1 ", "", "block < "]) + piece * _many(chance)


def _long_word(chance: Chance) -> str:
    char = chance.choice("a9_.-é٣Ａ\u0301\u200d😀,=")
    where = chance.choice(["{}", "vocab {}", "model {}", "block x{} < a >", "block < {} >", "let {} = mamba", "# {}"])
    where = chance.choice([where, "a 1e{}", "block < moe top{}/2 >", "block < moe top1/{} >", "a f({}={})", "a {}Ki"])
    return where.replace("{}", char * chance.choice([65, 400, 4_400, 30_000]))


def _numbers(chance: Chance) -> str:
    def number() -> str:
        digits = "".join(chance.choice("0123456789") for _ in range(chance.choice([1, 2, 9, 19, 31, 300, 4_301])))
        return digits + chance.choice(["", "", ".5", "e30", "e-30", "e4301", "e-99999", "Gi", "k", "e", ".", "_000"])

    def value(depth: int) -> str:
        if depth == 0:
            return number()
        shapes = "{}*{} {}/{} ({}+{}) ({}-{}) sqrt({}) ceil({}/{}) max({},{}) -{} min({})"
        shape = chance.choice(shapes.split())
        return shape.replace("{}", value(depth - 1), 1).replace("{}", value(depth - 1))

    name = chance.choice(["vocab", "d_model", "context", "mlp swiglu(", "norm rms(eps=", "embed(scale=", "logits(cap="])
    text = f"{name} {value(chance.randint(0, 4))}" + ")" * ("(" in name)
    return (
        COMPLETE.replace(name + " ", "zz ") + text + "\nblock < mamba(d_state=" + value(chance.randint(0, 3)) + ") >\n"
    )


def _repeats(chance: Chance) -> str:
    def n() -> int:
        return chance.choice([1, 2, 3, 97, 9_973, 10**6, 10**9, 10**12, 10**30])

    word = chance.choice(["d_state=2", "moe(expert=gelu(4)) top1/2", "mlp none", "d_conv=3"])
    tag = chance.choice([f"every {n()}", f"every {n()} offset {n()}", f"at [0..{n()}]", f"at [{n()}]", ""])
    inside = f"< < mamba > x{n()} {word} {tag}, mamba x{n()} > x{n()} d_state=3 every {n()}"
    share = f"share g x{n()} = attn gqa(4,2)\n" if chance.random() < 0.4 else ""
    block = f"block x{n()} < {inside}{', mamba <- g' if share else ''} > d_conv=2 every {n()}\n"
    return COMPLETE + share + block * chance.choice([1, 1, 3])


def _growing(chance: Chance) -> str:
    """Definitions that double, deepen or lengthen with every line."""
    first, step, last = chance.choice(
        [
            ("let l0 = mamba", "let l{1} = l{0} + l{0}", "block < l{0} >"),
            ("let l0 = < mamba >", "let l{1} = < l{0}, l{0} >", "block < l{0} >"),
            ("let l0 = < mamba >", "let l{1} = < l{0} > x2 d_state={1} every 3", "block < l{0} >"),
            ("let l0 = mamba", "let l{1} = l{0} d_state={1}", "block < l{0} >"),
            ("let l0 = mamba", "let l{1} = l{0} || l{0}", "block < l{0} >"),
            ("share l0 = mamba", "share l{1} = mamba <- l{0}", "block < mamba <- l{0} >"),
            ("let l0 = swiglu(4)", "let l{1} = moe(expert=l{0}, top1/2)", "block < mamba + l{0} >"),
            ("let l0 = mamba", "let l{1} = l{1}", "block < l{0} >"),
            ("share l0 = mamba", "share l{1} = mamba", "block < l{0}, l1, l0 >"),
            ("let l0 = mamba", "d_model l{0}", "block < l{0} >"),
        ]
    )
    n = chance.choice([1, 5, 25, 60, 300])
    lines = [first, *(step.replace("{0}", str(i)).replace("{1}", str(i + 1)) for i in range(n)), last.format(n)]
    return COMPLETE + "\n".join(lines) + "\n"


def _characters(chance: Chance) -> str:
    def char() -> str:
        spans = [
            (0, 0x20),
            (0x20, 0x80),
            (0x80, 0x250),
            (0x370, 0x500),
            (0x590, 0x700),
            (0x2000, 0x2070),
            (0xD800, 0xE000),
        ]
        spans += [(0xFE00, 0x10000), (0x1F300, 0x1F700), (0xE0000, 0xE0080), (0x10FFF0, 0x110000)]
        return chr(chance.randrange(*chance.choice(spans)))

    heap = "".join(
        char() if chance.random() < 0.5 else chance.choice(PIECES) for _ in range(chance.choice([3, 30, 300]))
    )
    return chance.choice(["", "\ufeff", COMPLETE, "model "]) + heap + chance.choice(["", "\nblock < mamba >\n"])


def _bytes(chance: Chance) -> bytes:
    text = chance.choice(specs())
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.choice([1, 10, 300, 70_000]))
        case 1:
            return text.encode(chance.choice(["utf-16", "utf-16-le", "utf-32", "utf-7", "cp500"]), "replace")
        case 2:
            return b"\xef\xbb\xbf" * chance.randint(1, 3) + text.encode("utf-8", "replace")
        case 3:
            return text.replace("\n", chance.choice(["\r\n", "\r", "\n\r", "\x0b", "\x85", "\0", "\u2028"])).encode()
        case 4:
            head = [
                b"\x89PNG\r\n\x1a\n",
                b"PK\x03\x04",
                b"\x7fELF",
                b"\x1f\x8b\x08",
                b"%PDF-1.7\n",
                b"#!/bin/sh\n",
                b"<?xml",
            ]
            return chance.choice(head) + chance.randbytes(100)
        case _:
            return chance.choice(
                [b"", b"\n", b"\0", b" ", b"\xff", b"vocab", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\xed\xa0\x80"]
            )


def _large(chance: Chance) -> str:
    unit = chance.choice(["vocab 4\n", "mamba ", "\n", " ", "# c", "<", "a" * 1000 + "\n", "é"])
    return unit * (chance.choice([60_000, 70_000, 300_000]) // len(unit))


def _injected(chance: Chance) -> str:
    """Text that means something to Python, to a shell, to a terminal, to a file system."""
    texts = [
        "__import__('os').system('true')", "';exit()#", '"""', "'''", "{{7*7}}", "${HOME}", "$(true)", "`true`", "%s%n",
        "\\N{BEL}", "\x1b]0;t\x07", "../../etc/passwd", "CON", "a/b", "-rf", "--help", "{0.__class__}", "<script>",
        "\\x00", "f'{1}'", "# noqa", "-*- coding: utf-7 -*-", "\\", "\n\nimport os\n", "eval", "class", "__init__",
        "lambda", "self", "None", "True",
    ]  # fmt: skip
    text = chance.choice(texts)
    where = [
        "model {}",
        "let {} = mamba",
        "share {} = mamba",
        "# {}",
        "{} 3",
        "block < {} >",
        "block < mamba {}=1 >",
        "mlp {}(4)",
    ]
    shape = chance.choice(where).replace("{}", text)
    return COMPLETE + shape + "\nblock < mamba >\n"


ATTACKS: list[Callable[[Chance], str | bytes]] = [
    _nested, _chained, _long_word, _numbers, _numbers, _repeats, _repeats, _growing, _growing, _characters, _characters,
    _bytes, _injected, _injected, _injected,
] * 4 + [_large]  # fmt: skip
