"""Names that reach a package: a model's becomes its folder and import, a shared module's an attribute and a class.

Syntax leaves them letters, digits and `_`, so that nothing can break out of a string; what remains is to keep them from
hiding what the package itself needs. `let` names never reach it.
"""

from __future__ import annotations

import builtins
import keyword
import re
import sys

from archc.diagnostics import Diagnostic, error
from archc.grammar.tree import Ident

MAX_NAME = 64  # characters of a name: a folder's, and still a readable line of code

# What an emitted package imports, and archc, which it must not hide.
_LIBRARIES = {"archc", "numpy", "pytest", "rich", "safetensors", "torch", "transformers", "triton", "setuptools", "pip"}

_STANDARD = sys.stdlib_module_names - {"test"}  # nothing imports Python's own tests, and many a model is one

# Attributes of torch's nn.Module, which a submodule would replace (those with a leading `_` are refused as such).
_MODULE = """
T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval
extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia
named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory
state_dict to to_empty train training type xpu zero_grad
"""
# Attributes, parameters and variables of the emitted classes, and what model.py has at its top.
_PACKAGE = """
embed norm layers lm_head mixer mlp init_weights init_cache no_decay keep_fp32 pack packs stack layer h x z delta fed
residual branch tokens logits positions cache state states batch context dtype device length like module normed weight
bias self cls use nn torch math annotations count index h0 h1 experts router
"""
_RESERVED = {*_MODULE.split(), *_PACKAGE.split(), *keyword.kwlist, *dir(builtins)}
# A layer names its parts after the shared modules that it uses, and classes of caches after what keeps them.
_PATTERN = re.compile(r"_.*|.*_(out|use|cache)|.*_(mixer|mlp)(_[0-9]+)?|(mixer|mlp|layer|model)(_.*)?")
# Classes of model.py that a shared module's own class could hide.
_CLASSES = {"Tensor", "Any", "Iterator", "NamedTuple", "Cache", "Packed", "AttentionState", "F"}


def class_name(name: str) -> str:
    """The class of a shared module: `g_two` is `GTwo`."""
    return "".join(word.capitalize() for word in name.split("_"))


def check_model(ident: Ident) -> Diagnostic | None:
    """What is wrong with the name of a model, if anything."""
    name = ident.name
    if len(name) > MAX_NAME:
        return _too_long(ident)
    if keyword.iskeyword(name) or name in _LIBRARIES or name in _STANDARD:
        what = "a word of Python" if keyword.iskeyword(name) else "a library that the package may need"
        return _reserved(ident, f"`{name}` cannot name a package: it is {what}", name)
    if name.startswith("_") or name.endswith("_"):
        return _reserved(
            ident, f"the name of a package begins and ends with a letter or digit, and `{name}` does not", name
        )
    return None


def check_share(ident: Ident) -> Diagnostic | None:
    """What is wrong with the name of a shared module, if anything."""
    name = ident.name
    if len(name) > MAX_NAME:
        return _too_long(ident)
    if name[0].isupper():
        message = f"the name of a shared module begins with a small letter, for `{class_name(name)}` is its class"
        return error("reserved-name", message, ident.span, help=f"write `{name[0].lower()}{name[1:]}`")
    if name in _RESERVED or _PATTERN.fullmatch(name) or class_name(name) in _CLASSES:
        return _reserved(ident, f"`{name}` cannot name a shared module: the model's code has another use for it", name)
    return None


def check_let(ident: Ident) -> Diagnostic | None:
    """What is wrong with a name that `let` binds: it is shown, but reaches no code."""
    return _too_long(ident) if len(ident.name) > MAX_NAME else None


def _reserved(ident: Ident, message: str, name: str) -> Diagnostic:
    return error("reserved-name", message, ident.span, help=f"choose another, as `my_{name.strip('_') or 'name'}`")


def _too_long(ident: Ident) -> Diagnostic:
    message = f"a name has at most {MAX_NAME} characters, and this one has {len(ident.name):,}"
    return error("reserved-name", message, ident.span, help="choose a shorter one")
