"""Settings of the documentation: `sphinx-build -W docs site` builds it.

Sphinx, since the reference is made from the docstrings, the same tool runs the
tutorials, and both it and its extensions are kept by many; the pages are Markdown all
the same, by MyST.
"""

import os
import sys
import types
from pathlib import Path
from typing import Any

# Read when TensorFlow and Keras are imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras_lottery as kl

ROOT = Path(__file__).parents[1]

project = "keras_lottery"
author = "the authors of keras_lottery"
copyright = f"2026, {author}"
version = release = "0.1.0"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
templates_path = ["templates"]
exclude_patterns = ["conf.py", "templates"]

# The public modules by the names under which they are used: `kl.callbacks` is a folder
# deep inside of the library.
PUBLIC = {
    f"keras_lottery.{name}": value
    for name, value in vars(kl).items()
    if name in kl.__all__ and isinstance(value, types.ModuleType)
}
sys.modules |= PUBLIC


def as_function(method: types.MethodType) -> types.FunctionType:
    """`register` of a module, which autodoc takes for the method that it is."""

    def register(name: str, value: Any = None) -> Any: ...

    register.__doc__ = method.__doc__
    return register


for module in PUBLIC.values():
    if isinstance(getattr(module, "register", None), types.MethodType):
        module.register = as_function(module.register)

autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
# Names in docstrings become links where they are found.
default_role = "py:obj"
suppress_warnings = ["ref.python"]  # Of several of a name, the first is as good.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
# The tutorials are run, and an error in one is an error here.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # TensorFlow's greeting

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "keras_lottery"
html_static_path = ["static"]
html_css_files = ["site.css"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def bars_are_bars(app, what, name, thing, options, lines: list[str]) -> None:
    """|w| is a magnitude: reStructuredText would look for a substitution."""
    lines[:] = [
        line if line.lstrip().startswith((">>>", "...")) else line.replace("|", r"\|")
        for line in lines
    ]


def found_in_the_library(app, env, node, content) -> Any:
    """`prune` is meant wherever a docstring says so, in any module."""
    if node.get("refdomain") != "py":
        return None
    name = f"keras_lottery.{node['reftarget']}"
    python, page = env.get_domain("py"), node["refdoc"]
    return python.resolve_xref(env, page, app.builder, "obj", name, node, content)


def setup(app) -> None:
    app.connect("missing-reference", found_in_the_library)
    app.connect("autodoc-process-docstring", bars_are_bars)
