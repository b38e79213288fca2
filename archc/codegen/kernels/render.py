"""The files of a kernel family: its templates, filled from its view.

A template is Python as it stands once its `{{ holes }}` are filled: options are line statements (`#% if gate`), which
Python takes for comments. Everything that a template asks for is a field or a property of its view; nothing is computed
in the template, and nothing is left to decide when the emitted file runs except what one model does both ways
(packed documents or not, a state or none, dtypes).
"""

from __future__ import annotations

import functools
import re

import jinja2

from archc.codegen.kernels.kernel import Kernel


def render(view: Kernel) -> dict[str, str]:
    """The files of one kernel family, by name."""
    return {file: _render(template, view) for file, template in view.files.items()}


def _render(file: str, view: Kernel) -> str:
    names = {name for name in dir(view) if not name.startswith("_")}
    return _environment().get_template(f"kernels/{file}.jinja").render({name: getattr(view, name) for name in names})


@functools.cache
def _environment() -> jinja2.Environment:
    package = jinja2.PackageLoader("archc.codegen")

    def load(name: str) -> str:
        # Jinja's own line statements swallow the blank lines that follow them.
        source = package.get_source(environment, name)[0]
        return re.sub(r"^ *#% *(.*)$", r"{% \1 %}", source, flags=re.MULTILINE)

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment
