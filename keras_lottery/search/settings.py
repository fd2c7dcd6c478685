"""The settings of a search, in a form that can be stored and compared."""

import dataclasses
import functools
import hashlib
import inspect
import json
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from keras_lottery.engines.objective import Objective
from keras_lottery.files import write_sealed
from keras_lottery.keras_bridge.datasets import is_dataset, is_tf_dataset, length_of
from keras_lottery.keras_bridge.internals.graph import is_graph
from keras_lottery.keras_bridge.internals.models import compile_arguments
from keras_lottery.keras_bridge.internals.optimizers import undecayed
from keras_lottery.keras_bridge.layers import walk
from keras_lottery.keras_bridge.layers.names import named_variables
from keras_lottery.search import stored
from keras_lottery.search.store import Store
from keras_lottery.search.stored import read_checked

# These may be extended later: what is stored stays valid.
MAY_GROW = ("replicates", "controls", "report_levels", "schedule")
NOT_COMPARED = (*MAY_GROW, "architecture", "initial", "margin", "versions")


def describe(value: Any) -> Any:
    """A value as JSON: numbers, texts, the settings of objects, the names of functions.

    Functions are described by name only, so a changed function counts as the same one.

    >>> describe({"rates": (0.5, np.float32(0.25)), "score": functools.reduce})
    {'rates': [0.5, 0.25], 'score': '_functools.reduce'}
    """
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
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def describe_callback(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """A callback's class, and the numbers and lists of texts that it was made with.

    Single texts are left out: most of them are paths, which may contain the time.
    """
    numbers = {
        name: getattr(callback, name, None)
        for name in inspect.signature(type(callback)).parameters
        if name != "verbose"
    }
    return {
        "class": type(callback).__name__,
        **{
            k: describe(v)
            for k, v in numbers.items()
            if isinstance(v, bool | int | float)
            or (isinstance(v, Mapping | list | tuple) and v)
        },
    }


def restore(described: Any, *classes: type) -> Any:
    """The object that was described, if its class is given; otherwise its name."""
    if isinstance(described, Mapping):
        known = {kind.__name__: kind for kind in classes}
        name = described.get("class")
        if not isinstance(name, str) or name not in known:
            return described
        fields = {k: restore(v, *classes) for k, v in described.items() if k != "class"}
        try:
            return known[name](**fields)
        except TypeError as error:
            raise ValueError(
                f"Expected the settings of a {name}. Received: {fields}"
            ) from error
    if isinstance(described, list):
        return tuple(restore(item, *classes) for item in described)
    return described


def describe_model(model: keras.Model) -> dict[str, Any]:
    """A model's layers, their connections, and how it is compiled.

    Names that Keras generated are left out.
    """
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
    excluded = undecayed(model.optimizer, named_variables(model))
    if any(names or pattern for names, pattern in excluded):
        optimizer["excluded_from_weight_decay"] = describe(excluded)
    return {
        "layers": layers,
        "wiring": _describe_wiring(model),
        **describe(compiled),
        "optimizer": optimizer,
    }


def _describe_wiring(model: keras.Model) -> dict[str, Any]:
    """How the layers of a model, and of models inside it, are connected.

    Layers are numbered in the way Keras numbers layers without a name.
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
    """The connections, with numbers in place of layer names."""
    if isinstance(config, dict):
        return {key: _numbered(value, place) for key, value in config.items()}
    if isinstance(config, list | tuple):
        if len(config) == 3 and isinstance(config[0], str) and config[0] in place:
            return [place[config[0]], *config[1:]]
        return [_numbered(item, place) for item in config]
    return describe(config)


def _without_names(config: Any) -> Any:
    """Paths without the names of layers, which Keras may have generated."""
    if isinstance(config, dict):
        return {k: _without_names(v) for k, v in config.items() if k != "name"}
    if isinstance(config, list):
        return [_without_names(item) for item in config]
    return config


def describe_data(data: Any) -> Any:
    """Shapes and digests of arrays; only the form of a data set."""
    if data is None:
        return None
    if is_tf_dataset(data):
        return {"batches": length_of(data), "elements": str(data.element_spec)}
    if is_dataset(data):
        batch = keras.tree.flatten(tuple(data[0]))
        elements = [f"{np.shape(array)} {np.asarray(array).dtype}" for array in batch]
        return {"batches": length_of(data), "elements": elements}
    return [describe_array(array) for array in keras.tree.flatten(data)]


def describe_array(array: Any) -> str:
    """The shape, type and digest of an array.

    >>> describe_array(np.zeros((2, 3)))
    '(2, 3) float64 17b0761f87b081d5cf10757ccc89f12b'
    """
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:  # texts, of which the array has addresses
        array = array.astype(str)
    digest = hashlib.sha256(array.view(np.uint8)).hexdigest()[:32]
    return f"{array.shape} {array.dtype} {digest}"


def versions() -> dict[str, str]:
    """The versions of Keras, its backend and this library."""
    backend = keras.backend.backend()
    return {
        "backend": backend,
        backend: _version(backend),
        "keras": keras.__version__,
        "keras_lottery": _version("keras_lottery"),
    }


# Each training notes them, and looking one up takes milliseconds.
_version = functools.cache(version)


def stored_objective(settings: Mapping[str, Any]) -> Objective:
    """The metric by which the trainings of a stored search are compared."""
    return restore(settings["objective"], Objective)


def merge(store: Store, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings to store from now on. This function does not change the store.

    The initial weights and the versions that the search began with stay part of its
    identity. Anything that was asked for earlier is kept, with a warning.

    Raises:
        ValueError: if the store holds another search; the differences are shown.
        CorruptedFileError: if its settings are damaged.
    """
    try:
        there = read_checked(store.settings, stored.Growing)
    except FileNotFoundError:
        return dict(settings)
    if "schedule" in there:
        stored.check(store.settings, there, stored.Settings)
    # What was stored went through JSON.
    here = json.loads(json.dumps(settings))
    _check_versions(there, here, store.directory)
    check_same(_compared(there, here), _compared(here, there), store.directory)
    merged = {
        **here,
        "initial": there["initial"],
        "versions": there["versions"],
        "replicates": max(there["replicates"], here["replicates"]),
        "controls": {
            name: max(
                c[name] for c in (there["controls"], here["controls"]) if name in c
            )
            for name in there["controls"] | here["controls"]
        },
        "report_levels": sorted({*there["report_levels"], *here["report_levels"]}),
    }
    if "schedule" in here:
        both = there["schedule"], here["schedule"]
        merged["schedule"] = max(both, key=lambda each: len(each["sparsities"]))
    grown = [name for name in MAY_GROW if merged.get(name) != here.get(name)]
    if grown:
        more = "; ".join(f"{n}: {merged[n]} there, {here[n]} here" for n in grown)
        warnings.warn(
            f"'{store.directory}' holds more than is asked for ({more}). It stays, and "
            "so do its rows in `results()`. Choose another directory for a table of "
            "its own.",
            stacklevel=4,
        )
    return merged


def _compared(settings: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have to be the same in both.

    For controls, these are the user's own functions, stored as [name, trials], that are
    in both; for levels, those that are in both.
    """
    fixed = {k: v for k, v in settings.items() if k not in NOT_COMPARED}
    fixed["controls"] = {
        name: given[0]
        for name, given in settings["controls"].items()
        if name in other["controls"] and not isinstance(given, int)
    }
    if "schedule" in settings and "schedule" in other:
        levels = len(other["schedule"]["sparsities"])
        sparsities = settings["schedule"]["sparsities"][:levels]
        fixed["schedule"] = {**settings["schedule"], "sparsities": sparsities}
    return fixed


def keep_settings(store: Store, settings: Mapping[str, Any]) -> None:
    """Writes the settings of trainings, unless they are stored already.

    Raises:
        ValueError: if other settings are stored; the differences are shown.
        CorruptedFileError: if the stored settings are damaged.
    """
    try:
        there = read_checked(store.settings, stored.Begun)
    except FileNotFoundError:
        write_sealed(store.settings, settings)
        return
    _check_versions(there, settings, store.directory)
    same = {"versions": there["versions"]}
    check_same(there, {**settings, **same}, store.directory)


def _check_versions(
    there: Mapping[str, Any], here: Mapping[str, Any], directory: Any
) -> None:
    """Refuses another backend, and warns of other versions.

    Args:
        there: the settings that are stored.
        here: the settings of this search.
        directory: where they are stored.
    """
    check_backend(there["versions"], here["versions"], directory)
    found = differences(there["versions"], here["versions"])
    if others := [f"{name} {one} there, {two} here" for name, one, two in found]:
        warnings.warn(
            f"'{directory}' was begun with other versions: {', '.join(others)}. What "
            "is trained from now on may differ by more than its seed; each training "
            "keeps its versions on record.",
            stacklevel=5,
        )


def check_backend(
    there: Mapping[str, str], here: Mapping[str, str], directory: Any
) -> None:
    """Raises ValueError if trainings were made with another backend."""
    if there.get("backend") != here["backend"]:
        raise ValueError(
            f"'{directory}' was trained on the backend {there.get('backend')}, which "
            "draws other random numbers. Received: "
            f"KERAS_BACKEND={here['backend']}. Set it as it was, or choose another "
            "directory."
        )


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], directory: Any) -> None:
    """Raises ValueError, with the differences, unless both settings are the same.

    Args:
        old: those that are stored.
        new: those of this search.
        directory: where they are stored.
    """
    # What was stored went through JSON; compare what JSON makes of the new one.
    found = differences(old, json.loads(json.dumps(new)))
    if lines := [f"  {path}: {one!r} there, {two!r} here" for path, one, two in found]:
        raise ValueError(
            f"'{directory}' was made with other settings:\n"
            + "\n".join(lines)
            + "\nChoose another `directory`, or the same settings to go on with it, or "
            "remove it with `overwrite=True`."
        )


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ, and the two values there.

    >>> list(differences({"a": 1, "b": [1, {"c": 2}]}, {"a": 1, "b": [1, {"c": 3}]}))
    [('b[1].c', 2, 3)]
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{path}.{key}" if path else key
            yield from differences(old.get(key), new.get(key), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (one, two) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, two, f"{path}[{i}]")
    elif old != new and not (old != old and new != new):  # NaN is NaN
        yield path, old, new
