"""Megatron-LM's arguments as text and as a configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from archc.hub.megatron import PATTERN
from archc.hub.read import UnsupportedConfig

# Symbols of a pattern for what no kind here computes.
_OTHERS = {
    "G": "a gated delta rule",
    "D": "sparse attention",
    "+": "latent attention",
    "E": "a mixture of experts",
    "/": "prediction of further tokens",
}
_OLDER = {"hybrid-override-pattern": PATTERN}
_STACKS = ("hybrid_stack_spec", "mamba_stack_spec")  # what `--spec` builds: layers as here
_FLAGS = {"swiglu": "swiglu", "squared-relu": "relu2"}  # flag, the activation that it stands for


def config_of(text: str) -> dict[str, object]:
    """The arguments in `text`, by name; the pattern as the list of its letters. Raises UnsupportedConfig.

    Sizes without a default have to be among them.
    """
    said: dict[str, object] = {}
    for written, value in _arguments(text):
        name = _OLDER.get(written, written)
        if said.setdefault(name, value) != value:
            raise UnsupportedConfig((name, f"{value}, but it says {said[name]} too"))
    problems = []
    letters = said.get(PATTERN)
    if isinstance(letters, str):
        said[PATTERN] = list(letters.replace("|", ""))  # where stages of a pipeline end
        strange = [symbol for symbol in dict.fromkeys(letters) if symbol in _OTHERS]
        problems += [(PATTERN, f"{symbol!r} is {_OTHERS[symbol]}, which is not supported") for symbol in strange]
    stack = said.get("spec")
    if isinstance(stack, list) and stack[-1] in _STACKS:
        del said["spec"]
    activation = [kind for flag, kind in _FLAGS.items() if said.pop(flag, False)]
    said["activation"] = activation[0] if activation else "gelu"
    if len(activation) > 1:
        problems.append(("squared-relu", "and swiglu are two activations"))
    needed = [PATTERN, "hidden-size", *(["num-attention-heads"] if "*" in str(letters) else [])]
    problems += [(name, "it is missing, and Megatron has no default for it") for name in needed if name not in said]
    if not said.keys() & {"vocab-size", "padded-vocab-size"}:
        problems.append(("vocab-size", "it is missing, and Megatron would ask the tokenizer for it"))
    if problems:
        raise UnsupportedConfig(*problems)
    return said


def text_of(config: Mapping[str, object]) -> str:
    """The arguments, one a line."""
    flags = {kind: flag for flag, kind in _FLAGS.items()}
    lines = []
    for name, value in config.items():
        if name == "activation":
            name, value = flags.get(str(value), ""), True
        if name and value is not None and value is not False:
            said = "".join(map(str, value)) if isinstance(value, list) else "" if value is True else str(value)
            lines.append(f"--{name} {said}".rstrip())
    return "\n".join(lines) + "\n"


def _arguments(text: str) -> Iterator[tuple[str, object]]:
    """(name, value) of each `--name value`, `--name=value` or `--name`. Raises UnsupportedConfig."""
    before, *options = re.split(r"(?:^|\s)--(?=[a-z])", text)
    if before.strip():
        raise UnsupportedConfig((before.split()[0], "it is no argument"))
    for said in options:
        name, *words = said.replace("\\\n", " ").replace("=", " ", 1).split()
        values = [_value(word.strip("\"'")) for word in words]
        yield name, True if not values else values[0] if len(values) == 1 else values


def _value(word: str) -> object:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
