"""What a search was asked for, in a form that can be stored and compared."""

import dataclasses
import functools
import hashlib
import inspect
import json
import platform
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.data import is_tf_dataset
from keras_lottery.engines.objective import Objective
from keras_lottery.files import CorruptedFileError, read_json
from keras_lottery.keras_bridge.internals.graph import is_graph
from keras_lottery.keras_bridge.internals.models import compile_arguments
from keras_lottery.keras_bridge.layers import walk
from keras_lottery.search.store import Store

# More of these may be asked for later: what is there stays valid.
MAY_GROW = ("replicates", "controls", "report_levels")
CODE = ", code "
NOT_COMPARED = (*MAY_GROW, "architecture", "initial", "tolerance", "versions")


def describe(value: Any) -> Any:
    """A value as JSON: names, numbers, and the settings of objects."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: describe(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
        return {"class": type(value).__name__, **fields}
    if hasattr(value, "get_config") and not isinstance(value, type):
        return {"class": type(value).__name__, **describe(value.get_config())}
    if isinstance(value, functools.partial):
        return describe({"function": value.func, "args": value.args, **value.keywords})
    if inspect.isfunction(value):
        return describe_function(value)
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def describe_function(function: types.FunctionType) -> str:
    """A function's name and, of one of the user's, a digest of its code.

    The values that it was made with are left out: the time of day may be among them.
    """
    name = f"{function.__module__}.{function.__qualname__}"
    if (function.__module__ or "").partition(".")[0] in ("keras", "keras_lottery"):
        return name
    digest = hashlib.sha256(repr(_code(function.__code__, function.__doc__)).encode())
    python = ".".join(platform.python_version_tuple()[:2])
    return f"{name}{CODE}{python}:{digest.hexdigest()[:8]}"


def _code(code: types.CodeType, docstring: str | None) -> list[Any]:
    """What a function's code does, wherever it stands in its file."""
    constants = [
        _code(one, None)
        if isinstance(one, types.CodeType)
        # A set has another order in each process.
        else repr(sorted(map(repr, one)) if isinstance(one, frozenset) else one)
        for one in code.co_consts
        if one is None or one != docstring
    ]
    return [code.co_code.hex(), code.co_names, constants]


def describe_callback(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """A callback's class, and the numbers that it was made with.

    Texts are left out: most are paths, which may have the time in them.
    """
    numbers = {
        name: getattr(callback, name, None)
        for name in inspect.signature(type(callback)).parameters
        if name != "verbose"
    }
    return {
        "class": type(callback).__name__,
        **{k: v for k, v in numbers.items() if isinstance(v, bool | int | float)},
    }


def restore(described: Any, *classes: type) -> Any:
    """The object that `describe` was given, if of one of the classes; else its name."""
    if isinstance(described, Mapping) and "class" in described:
        known = {kind.__name__: kind for kind in classes}
        if described["class"] not in known:
            return described
        fields = {k: restore(v, *classes) for k, v in described.items() if k != "class"}
        return known[described["class"]](**fields)
    if isinstance(described, list):
        return tuple(restore(item, *classes) for item in described)
    return described


def describe_model(model: keras.Model) -> dict[str, Any]:
    """A model's layers and how it is compiled; automatic names left out."""
    layers = {}
    for path, layer in walk(model):
        if not isinstance(layer, keras.Model):
            layers[path] = {
                "class": type(layer).__name__,
                **_without_names(describe(layer.get_config())),
            }
    compiled = compile_arguments(model)
    optimizer = describe(compiled["optimizer"])
    optimizer.pop("name")  # numbered by a counter of the process
    return {
        "layers": layers,
        **describe(compiled),
        "optimizer": optimizer,
    }


def describe_wiring(model: keras.Model) -> dict[str, Any]:
    """How the layers of a model, and of those inside of it, follow one another.

    They are numbered, as Keras counts the names of those that have none.
    """
    wirings: dict[str, Any] = {}
    for path, part in [("", model), *walk(model)]:
        if isinstance(part, keras.Sequential):
            names = [type(layer).__name__ for layer in part.layers]
            wirings[path] = {str(i): name for i, name in enumerate(names)}
        elif is_graph(part):
            config = part.get_config()
            layers = config["layers"]
            place = {layer["name"]: i for i, layer in enumerate(layers)}
            wirings[path] = {
                f"{i} {layer['class_name']}": _numbered(layer["inbound_nodes"], place)
                for i, layer in enumerate(layers)
            } | {
                key: _numbered(config[key], place)
                for key in ("input_layers", "output_layers")
            }
    return wirings


def _numbered(config: Any, place: Mapping[str, int]) -> Any:
    """A wiring with numbers for the names of layers."""
    if isinstance(config, dict):
        return {key: _numbered(value, place) for key, value in config.items()}
    if isinstance(config, list | tuple):
        if len(config) == 3 and isinstance(config[0], str) and config[0] in place:
            return [place[config[0]], *config[1:]]
        return [_numbered(item, place) for item in config]
    return describe(config)


def _without_names(config: Any) -> Any:
    """Names of layers, which Keras may have given, are in the paths."""
    if isinstance(config, dict):
        return {k: _without_names(v) for k, v in config.items() if k != "name"}
    if isinstance(config, list):
        return [_without_names(item) for item in config]
    return config


def describe_data(data: Any) -> Any:
    """Shapes and digests of arrays; of a `tf.data.Dataset` its form alone."""
    if data is None:
        return None
    if is_tf_dataset(data):
        return {"batches": int(data.cardinality()), "elements": str(data.element_spec)}
    return [describe_array(array) for array in keras.tree.flatten(data)]


def describe_array(array: Any) -> str:
    """Shape, type and digest.

    >>> describe_array(np.zeros((2, 3)))
    '(2, 3) float64 17b0761f87b081d5cf10757ccc89f12b'
    """
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(array).hexdigest()[:32]
    return f"{array.shape} {array.dtype} {digest}"


def describe_state(state: Mapping[str, np.ndarray]) -> str:
    """A digest of a model's state."""
    text = json.dumps({name: describe_array(state[name]) for name in sorted(state)})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def versions() -> dict[str, str]:
    """Of Keras, its backend and this library."""
    from importlib.metadata import version

    backend = keras.backend.backend()
    return {
        "backend": backend,
        backend: version(backend),
        "keras": keras.__version__,
        "keras_lottery": version("keras_lottery"),
    }


def read_settings(store: Store) -> dict[str, Any]:
    """The stored settings; for one that is of a later date than they, what it was then.

    Raises:
        FileNotFoundError: if there is no search in the directory.
        CorruptedFileError: if they are damaged.
    """
    stored = read_json(store.settings)
    levels = len(stored["schedule"]["sparsities"])
    return {
        "granularity": "weight",
        "report_levels": list(range(1, levels + 1)),
        "engine": "fit",
        "in_workers": False,
        **stored,
    }


def stored_objective(settings: Mapping[str, Any]) -> Objective:
    """What the trainings of a stored search are compared by."""
    return restore(settings["objective"], Objective)


def merge(store: Store, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the store is to have from now on, which is not changed.

    Raises:
        ValueError: if it holds another search; the differences are shown.
    """
    try:
        stored: Mapping[str, Any] = read_settings(store)
    except FileNotFoundError:
        stored = settings
    except CorruptedFileError as error:
        warnings.warn(f"{error}. It is written again.", stacklevel=3)
        stored = settings
    check_same(stored, settings, store.directory)
    # The weights that the search began with stay those that it is known by, and what
    # was asked for before is still there.
    kept = {
        "initial": stored["initial"],
        "replicates": max(stored["replicates"], settings["replicates"]),
        "controls": stored["controls"] | settings["controls"],
        "report_levels": sorted({*stored["report_levels"], *settings["report_levels"]}),
    }
    return {**settings, **kept}


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], directory: Any) -> None:
    """Raises ValueError, with the differences, if two searches are not the same."""
    # What was stored went through JSON; compare what JSON makes of the new one.
    new = json.loads(json.dumps(new))
    if "wiring" not in old["model"]:  # stored when it was not compared
        new["model"].pop("wiring", None)
    # A single training has no controls.
    controls = [settings.get("controls", {}) for settings in (old, new)]
    shared = controls[0].keys() & controls[1].keys()
    before, now = (_own_controls(each, shared) for each in controls)
    differences = [
        f"  {path}: {there!r} there, {here!r} here"
        for path, there, here in _differences(
            _compared(old) | {"controls": before}, _compared(new) | {"controls": now}
        )
    ]
    if differences:
        raise ValueError(
            f"The directory '{directory}' holds a search with other settings:\n"
            + "\n".join(differences)
            + "\nChoose another directory, or the same settings to go on with it."
        )


def _own_controls(controls: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Of controls that are functions of one's own; trials may grow."""
    return {name: controls[name][0] for name in names if type(controls[name]) is list}


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in settings.items() if k not in NOT_COMPARED}


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{path}.{key}" if path else key
            yield from _differences(old.get(key), new.get(key), inner)
    elif _have_objects(old, new):
        for i, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, now, f"{path}[{i}]")
    elif not _same(old, new):
        yield path, old, new


def _have_objects(old: Any, new: Any) -> bool:
    """Whether these are lists of objects, to be compared one by one."""
    if not isinstance(old, list) or not isinstance(new, list) or len(old) != len(new):
        return False
    return any(isinstance(one, Mapping) for one in [*old, *new])


def _same(old: Any, new: Any) -> bool:
    """Whether two values are the same, as far as can be told.

    >>> _same("mine.f", "mine.f, code 3.12:1a2b3c4d")  # stored when it was not compared
    True
    >>> _same("mine.f, code 3.11:5e6f7a8b", "mine.f, code 3.12:1a2b3c4d")
    True
    >>> _same("mine.f, code 3.12:5e6f7a8b", "mine.f, code 3.12:1a2b3c4d")
    False
    """
    if isinstance(old, str) and isinstance(new, Mapping):
        return old == new.get("class")  # a callback was stored by its name
    if isinstance(old, str) and isinstance(new, str) and old != new:
        (name, _, code), (other, _, now) = old.partition(CODE), new.partition(CODE)
        # Each Python compiles to a code of its own.
        return name == other and code.partition(":")[0] != now.partition(":")[0]
    return old == new or (old != old and new != new)  # NaN
