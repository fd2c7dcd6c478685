"""The project's own rules: which way imports point, light imports, docstrings."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

import keras_lottery as kl

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_lottery"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Imported in the functions that use them.
LAZY = {
    "ai_edge_litert",
    "ai_edge_quantizer",
    "constriction",
    "jax",
    "matplotlib",
    "onnxruntime",
    "openvino",
    "pandas",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_model_optimization",
    "tf_keras",
}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(read(path))


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that a node imports, at any depth, dotted."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


def imported_at_once(path: Path) -> set[str]:
    """The packages that are imported as soon as the file is."""
    packages = set()
    for node in parse(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        packages |= {dotted.partition(".")[0] for dotted in imported(node)}
    return packages


def public_objects() -> Iterator[tuple[str, object]]:
    """Every public function, class and method, but for those that Keras asks for."""
    for info in pkgutil.walk_packages(kl.__path__, "keras_lottery."):
        backend = info.name.partition("keras_bridge.backends.")[2]
        if backend and importlib.util.find_spec(backend) is None:
            continue
        for name, value in vars(importlib.import_module(info.name)).items():
            if name.startswith("_") or getattr(value, "__module__", "") != info.name:
                continue
            if inspect.isroutine(value):
                yield f"{info.name}.{name}", value
            if inspect.isclass(value):
                yield f"{info.name}.{name}", value
                yield from public_methods(value)


def public_methods(owner: type) -> Iterator[tuple[str, object]]:
    for name in vars(owner).keys() - set(dir(keras.layers.Layer)):
        member = getattr(owner, name)
        is_method = inspect.isroutine(member) or isinstance(member, property)
        if is_method and not name.startswith("_"):
            yield f"{owner.__module__}.{owner.__name__}.{name}", member


def test_imports_point_one_way():
    """The contracts are in pyproject.toml."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def rooms() -> list[str]:
    """The modules and folders of the package, those first that use no others."""
    config = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]
    layers = config["contracts"][0]["layers"]
    return [room for layer in reversed(layers) for room in layer.split(" | ")]


def layout() -> str:
    """The rooms in the order of the imports, by the first lines of their docstrings."""
    rows = ["| in `keras_lottery/` | is |", "|---|---|"]
    for room in rooms():
        places = [PACKAGE / f"{room}.py"]
        if not places[0].exists():
            places = sorted((PACKAGE / room).rglob("__init__.py"))
        for path in places:
            name = path.relative_to(PACKAGE).as_posix().removesuffix("__init__.py")
            text = (ast.get_docstring(parse(path)) or "").split("\n\n")[0]
            rows.append(f"| `{name}` | {' '.join(text.split())} |")
    return "\n".join(rows)


def test_the_layout_in_contributing_is_that_of_the_docstrings():
    assert layout() in read(ROOT / "CONTRIBUTING.md"), layout()


def test_heavy_packages_are_imported_where_they_are_used():
    # One that Keras works on is imported with it.
    backends = PACKAGE / "keras_bridge/backends"
    wrong = {
        name_of(path): imported_at_once(path) & LAZY
        for path in SOURCES
        if path.parent != backends or path.stem == "__init__"
    }
    assert {path: packages for path, packages in wrong.items() if packages} == {}


@pytest.mark.once
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_library_imports_no_tensorflow_on_other_backends(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    code = (
        "import sys, keras, numpy as np\n"
        "before = set(sys.modules)\n"
        "import keras_lottery as kl\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})\n"
        "x = keras.Input((4,))\n"
        "model = keras.Model(x, keras.layers.Dense(3)(x))\n"
        "model.compile('sgd', 'mse')\n"
        "found = kl.LotteryTicketSearch(lambda: model, [0.5], objective='val_loss')\n"
        "data = np.ones((8, 4), 'float32'), np.ones((8, 3), 'float32')\n"
        "found.search(*data, validation_data=data, epochs=1, verbose=0)\n"
        "found.ticket(1).save('a.ticket')\n"
        "model = kl.load_ticket('a.ticket').trained_model()\n"
        "print(keras.backend.backend(), kl.get_sparsity(model))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    env = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    added, result, loaded = run.stdout.splitlines()
    # Keras itself imports some of these, if they are installed.
    assert not set(added.split()) & LAZY
    assert result == f"{backend} 0.5"
    assert not set(loaded.split()) & {"tensorflow", "tensorflow_datasets"}


def test_everything_public_has_a_docstring():
    objects = dict(public_objects())
    assert "keras_lottery.search.run.Run.verdict" in objects
    assert [name for name in objects if not inspect.getdoc(objects[name])] == []


def test_public_names_are_spelled_out_and_exist():
    assert kl.__all__ == sorted(kl.__all__)
    assert [name for name in kl.__all__ if not hasattr(kl, name)] == []


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"^   (\w+)$", read(ROOT / "docs/api/index.md"), re.M))
    # Callbacks have a page of their own.
    assert listed == set(kl.__all__) - set(kl.callbacks.__all__) | {"testing"}


def test_a_public_name_stands_for_one_thing():
    modules = {name for name in kl.__all__ if inspect.ismodule(getattr(kl, name))}
    inside = {n for name in modules for n in getattr(getattr(kl, name), "__all__", ())}
    assert not modules & inside
    objects = [getattr(kl, name) for name in kl.__all__]
    assert len({id(each) for each in objects}) == len(objects)


def test_all_callbacks_are_in_one_module():
    found = {
        name.rpartition(".")[2]
        for name, value in public_objects()
        if inspect.isclass(value) and issubclass(value, keras.callbacks.Callback)
    }
    # What others are made of.
    found -= {"Configured", "InFit", "MaskUpdates", "Regrowth"}
    assert found <= set(kl.callbacks.__all__)


@pytest.mark.parametrize(
    "command",
    [
        "pip install . && python scripts/find_ticket.py",
        'pip install ".[test]" && pytest',
    ],
)
def test_the_readme_has_the_two_commands(command):
    assert command in read(ROOT / "README.md").splitlines()
