"""Private names of Keras are in one folder, `keras_bridge/internals/`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

pytestmark = pytest.mark.once

PACKAGE = Path(__file__).parents[2] / "keras_lottery"
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in PACKAGE.rglob("*.py")
}
ROOM = "keras_bridge/internals/"
OUTSIDE = {name: tree for name, tree in SOURCES.items() if not name.startswith(ROOM)}

# Those of other libraries, by the file that reads them ("" for all).
OTHERS = {
    "": {"_asdict", "_exit", "_fields", "_get_ops_details", "_replace"},
    # IPython asks for it.
    "study/plots.py": {"_repr_png_"},
    # It reads models of tf_keras, which is another library.
    "interop/tf_keras.py": {
        "_flatten_layers",
        "_is_graph_network",
        "_nested_inputs",
        "_nested_outputs",
        "_nodes_by_depth",
        "_non_trainable_weights",
        "_trainable_weights",
    },
}
# Where the name of a base class tells one of Keras's, or a mixin for them.
BASES = ("keras.", "Hooks", "Masked")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and len(name) > 1


def private(*things: object) -> set[str]:
    return {name for thing in things for name in dir(thing) if is_private(name)}


INPUTS = keras.Input((1,))
CALLBACKS = private(keras.callbacks.Callback())
THEIRS = private(
    keras.Variable(0.0),
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]),
    keras.Model(INPUTS, keras.layers.Identity()(INPUTS)),
    keras.layers.Lambda(abs),
    keras.optimizers.Adam(),
)


def defined(tree: ast.AST) -> Iterator[str]:
    """The names that a file defines: in modules, in classes and on `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(getattr(node, "ctx", None), ast.Store):
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                yield node.attr


OURS = {name for tree in OUTSIDE.values() for name in defined(tree)}


def private_names(name: str, tree: ast.AST) -> Iterator[str]:
    """What a file uses of Keras and Keras does not export, with line numbers."""
    others = OTHERS[""] | OTHERS.get(name, set())
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=owner, attr=attr) if is_private(attr):
                # A name of ours may be one of Keras's on another object.
                theirs = set() if ast.unparse(owner) in ("self", "cls") else THEIRS
                if attr not in (OURS - theirs) | others:
                    yield f"{name}:{node.lineno} `{attr}`"
            case ast.Subscript(slice=ast.Constant(value=str(text))) if text in THEIRS:
                yield f"{name}:{node.lineno} '{text}'"
            case ast.Call(func=ast.Name(), args=[_, ast.Constant(value=str(text)), *_]):
                if is_private(text) and text not in OURS | others:
                    yield f"{name}:{node.lineno} '{text}'"
            case ast.ClassDef(bases=bases):
                kinds = " ".join(map(ast.unparse, bases))
                if any(base in kinds for base in BASES):
                    theirs = CALLBACKS if "Callback" in kinds else THEIRS
                    for own in {*defined(node)} & theirs:
                        yield f"{name}:{node.lineno} `{node.name}.{own}`"
            case ast.Constant(value=str(text)) if text.startswith("keras.src"):
                yield f"{name}:{node.lineno} '{text}'"
            case ast.ImportFrom(module=str(module)) if "keras.src" in module:
                yield f"{name}:{node.lineno} `{module}`"
            case ast.Import(names=names) if "keras.src" in str([*map(ast.dump, names)]):
                yield f"{name}:{node.lineno} `keras.src`"


def test_private_names_of_keras_are_in_one_folder():
    found = [found for item in OUTSIDE.items() for found in private_names(*item)]
    assert not found, f"Move to {ROOM}, behind a function of ours: {found}"


@pytest.mark.parametrize(
    "code",
    [
        "model._flatten_layers()",
        "model._layers",
        "self._untrack_variable(mask)",
        "optimizer._learning_rate = schedule",
        "getattr(model, '_distribute_strategy', None)",
        "vars(layer)['_dtype_policy']",
        "from keras.src.backend.common import global_state",
        "import keras.src.ops",
        "type(layer).__module__.startswith('keras.src.ops.')",
        "class Mixin(Hooks):\n    def _post_build(self): ...",
        "class Mine(keras.layers.Layer):\n    _path = 'a'",
    ],
)
def test_they_are_found(code):
    assert len([*private_names("a.py", ast.parse(code))]) == 1


def test_private_names_say_where_they_were_seen():
    silent = []
    for name, tree in SOURCES.items():
        for part in tree.body if name.startswith(ROOM) else []:
            names = [getattr(node, "attr", "") for node in ast.walk(part)]
            if THEIRS & {*names}:
                docstring = " ".join((ast.get_docstring(part) or "").split())
                if "seen on Keras 3." not in docstring:
                    silent.append(f"{name}:{part.lineno}")
    assert not silent
