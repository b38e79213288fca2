"""Names and strings that mean something to Python, to torch, to a shell or to nobody, and where they may stand."""

from __future__ import annotations

import builtins
import keyword
import sys
from random import Random

from torch import nn

HEAD = "vocab 16\nd_model 8\n"
ROLES = ("model", "share", "let", "comment", "setting", "field", "value", "feed")

OURS = """\
torch triton numpy F nn self cls args kwargs h x B T D Tensor Cache Model Layer NAME VOCAB CONTEXT mixer mlp norm embed
"""
_PYTHON = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *dir(str), *sys.stdlib_module_names}
WORDS = sorted({*_PYTHON, *dir(nn.Module), *OURS.split()})
STRINGS = r"""
'''|'|"|\|\\|\"|\N{BULLET}|\x41|\u0041|{|}|{{|}}|{{ 7*7 }}|{% raw %}|{#|#}|%s|%(a)s|${IFS}|$(true)|`id`|;|&&
<!--|-->|<script>|]]>|```|~~~|---|...|#!|# -*- coding: utf-7 -*-|# type: ignore|# fmt: off|# noqa|import os|exec('1')
__import__('os').remove('x')|os.system('true')|breakpoint()|lambda: 0|yield|await x|return|del torch|raise SystemExit
f'{open("x", "w")}'|"); open('x','w')  #|../../x|/etc/passwd|C:\x|CON|NUL|.|..|~|-rf|--help|@file|!!python/object:x
"""
PIECES = [piece for line in STRINGS.split("\n") for piece in line.split("|") if piece]
PIECES += ['"""', "\n", '"""\nimport os\n"""', "\\\n", "\r"]
LETTERS = "abcxyzABCXYZ_019"
FOREIGN = "éßıſﬁªµΩаｘ𝐱名\u200d\u0301\u202e\u2028\x00\x07\x1b\x7f\ud800"


def string(chance: Random) -> str:
    """A word of Python, a mutated one, an injection, or letters of any alphabet."""
    match chance.randrange(8):
        case 0 | 1:
            return chance.choice(WORDS)
        case 2:
            word = chance.choice(WORDS)
            ways = [f"_{word}", f"{word}_", word.upper(), word.capitalize(), f"{word}_2", f"{word}{word}", f"x{word}"]
            return chance.choice(ways)
        case 3 | 4:
            return "".join(chance.choice(PIECES) for _ in range(chance.randint(1, 3)))
        case 5:
            return "".join(chance.choice(LETTERS) for _ in range(chance.choice([1, 2, 3, 8, 63, 64, 65, 300])))
        case 6:
            return "".join(chance.choice(LETTERS + FOREIGN) for _ in range(chance.randint(1, 6)))
        case _:
            return chance.choice(WORDS) + chance.choice(PIECES) + chance.choice(WORDS)


def spec(role: str, text: str) -> str:
    """The smallest spec in which `text` stands in a role."""
    head = f"{HEAD}mlp none\n"
    return {
        "model": f"model {text}\n{head}block < mamba >\n",
        "share": f"{head}share {text}(out=linear) x2 = attn mha(2)\nblock x2 < mamba, mamba <- {text}, {text} >\n",
        "let": f"{head}let {text} = mamba(d_state=4)\nblock < {text} >\n",
        "comment": f"# {text}\n{head}# {text}\nblock < mamba >  # {text}\n",
        "setting": f"{head}{text} 4\nblock < mamba >\n",
        "field": f"{head}block < mamba({text}=4) >\n",
        "value": f"{head}norm {text}\nblock < mamba inner_norm={text} >\n",
        "feed": f"{head}block < mamba <- {text} >\n",
    }[role]


def together(accepted: list[tuple[str, str]]) -> str:
    """One spec that holds all these (role, text), each of which is accepted alone."""
    lines, layers = [], ["mamba"]
    models = [text for role, text in accepted if role == "model"]
    lines += [f"model {text}" for text in models[:1]]
    lines += [*HEAD.splitlines(), "mlp none"]
    for role, text in accepted:
        if role == "share":
            lines.append(f"share {text}(out=linear) x2 = attn mha(2)")
            layers += [f"mamba <- {text}", text]
        elif role == "let":
            lines.append(f"let {text} = mamba(d_state=4)")
            layers.append(text)
        elif role == "comment":
            lines.append(f"# {text}")
    return "\n".join([*lines, f"block x2 < {', '.join(layers)} >"]) + "\n"
