"""A sweep: every public function and class with one wrong argument at a time.

The public names are found here, so that a new one is under the sweep at once: it needs
a good call in `good_calls/`, or a reason in `LEFT_OUT`. Of each argument every value
of `WRONG` is tried. What comes of it has to be a `ValueError` of this library that
names the argument, before anything is trained, or a result that the good call says is
meaningful.
"""

import collections
import contextlib
import inspect
import io
import re
import signal
import sys
import tempfile
import types
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.engines import engine, fit, fits
from keras_lottery.engines.engine import Engine
from keras_lottery.search import search
from keras_lottery.ship.deploy import files as deploy_files
from keras_lottery.ship.deploy import tickets as deploy_tickets
from keras_lottery.ship.export import keras_file, litert, saved_model
from keras_lottery.study import transfer
from keras_lottery.study.analysis import evaluation
from keras_lottery.study.report import write
from tests.good_calls import PLACES, WRONG, finished, good_calls, mlp
from tests.models_zoo import Tagger

pytestmark = pytest.mark.once

SECONDS = 60
# Of a class with these methods, Keras or the search calls them with what it made.
CALLED_BY_KERAS = (keras.layers.Layer, keras.callbacks.Callback, keras.Model)
LEFT_OUT = {
    r"kl\.layers\.Masked.*": "a layer of Keras, with its arguments",
    r"kl\.layers\.(premasked|read_as|walk|named_\w+|copy_model|redraw|is_masked)": (
        "for those who extend the library"
    ),
    r"kl\.(criteria|filter_criteria)\.(?!get|register)\w+": (
        "a search or `prune` calls it with a snapshot that it made"
    ),
    r"kl\.controls\.(?!get|register|trials|resolve)\w+": (
        "a search calls it with a ticket and a snapshot that it made"
    ),
    r"kl\.rewind\.from_\w+": "a search calls it with a snapshot that it made",
    r"kl\.\w+\.register": "tests/test_registry.py",
    r"kl\.register_masked": "tests/keras_bridge/layers",
    r"kl\.interop\..*": "its argument is a model of another library",
    r"kl\.(CorruptedFileError|export\.(\w+Report|ExportError|SparseLayer))": (
        "the library makes it"
    ),
    r"kl\.export\.to_(onnx|openvino)": "tests/ship/export/test_other_runtimes.py",
    r"kl\.data\.Splits": "`data.load` makes it",
    r"kl\.(Snapshot|rewind\.(Span|Rewind))": "the library makes it",
    r"kl\.admm\.(Averages|Residual|Result)": "the library makes it",
    r"kl\.automatic\.(Choice|Compressed)": "the library makes it",
    r"kl\.admm\.Split": "for those who extend the library",
    r"kl\.(allocation\.(Allocation|classes)|grouping\.Columns)": "has no arguments",
    r"kl\.repair\.(ByLayer|Repair)": "for those who extend the library",
    r"kl\.grouping\.(Grouped|Grouping|Groups|InsideWeights|Kind|Weights)": (
        "for those who extend the library"
    ),
    r"kl\.models\.bert_small_mlm": "the arguments of `bert_small`, by the same code",
    r"kl\.models\.(conv_\d|lenet_5|mobilenet_v2|resnet_\d+|vgg_\d+)": (
        "the arguments of `lenet_300_100`, `resnet` and `vgg`, by the same code"
    ),
}


class Reached(BaseException):
    """A call has come as far as training, converting or measuring."""


class Hanging(BaseException):
    """A call does not come back."""


def public():
    """The library's own functions and classes by their public names, each once."""
    found, seen = {}, {kl}

    def walk(module, path):
        inner = []
        for name in sorted(names_of(module)):
            value = getattr(module, name)
            if isinstance(value, types.ModuleType):
                if value.__name__.startswith("keras_lottery") and value not in seen:
                    seen.add(value)
                    inner.append((value, f"{path}.{name}"))
            elif is_own(value) and callable(value) and id(value) not in seen:
                seen.add(id(value))
                found[f"{path}.{name}"] = value
        for value, where in inner:
            walk(value, where)

    walk(kl, "kl")
    return found


def names_of(module):
    own = [name for name in dir(module) if not name.startswith("_")]
    return getattr(module, "__all__", own)


def is_own(value):
    module = getattr(value, "__module__", None) or ""
    return module.startswith("keras_lottery") and (
        inspect.isfunction(value) or inspect.isclass(value) or inspect.ismethod(value)
    )


# What a function calls its argument in errors, where that is another word.
CALLED = {
    "kl.controls.get": "control",
    "kl.criteria.get": "criterion",
    "kl.allocation.get": "allocation",
    "kl.filter_criteria.get": "criterion",
    "kl.repair.get": "repair",
    "kl.rewind.get": "rewind",
}
MODELS = {
    "unbuilt": lambda: keras.Sequential([keras.layers.Dense(2)]),
    "subclassed": lambda: Tagger(),  # not built
    "unmasked": lambda: mlp(),
    "uncompiled": lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]),
}

Outcome = collections.namedtuple("Outcome", "name argument label kind what")


def sweep(folder, run, only=None):
    """What comes of each call."""
    functions = {name: value for name, value in public().items() if not left_out(name)}
    for name, good in good_calls(folder, run).items():
        if only and only not in name:
            continue
        function = good.call or functions.get(name)
        if function is None:
            continue
        parameters = inspect.signature(function).parameters
        arguments = {
            key: parameter
            for key, parameter in parameters.items()
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        }
        kind, what = outcome(function, good.arguments, "?")
        if kind not in ("result", "reached"):
            yield Outcome(name, "", "good", "broken", what)
            continue
        for argument, parameter in arguments.items():
            values = dict(WRONG)
            if isinstance(good.arguments.get(argument), keras.Model):
                words = good.wrong_models
                wrong = MODELS if words == "all" else words.split()
                values |= {key: MODELS[key]() for key in wrong if key != "unmasked"}
                if "unmasked" in wrong and name not in ("transfer",):
                    values["unmasked"] = MODELS["unmasked"]()
                if name == "transfer":
                    values.pop("uncompiled", None)
            if argument in ("path", "directory"):
                values |= PLACES
            for label, value in values.items():
                wrong = {**good.arguments, argument: value}
                called = CALLED.get(name, argument)
                kind, what = outcome(function, wrong, called, value)
                if kind in ("result", "reached"):
                    right = good.is_right(argument, label, parameter)
                    kind = "meaningful" if right else "meaningless"
                yield Outcome(name, argument, label, kind, what)


def outcome(function, arguments, argument, value=None):
    """What comes of a call: its kind, and what to say of it."""
    signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            result = function(**arguments)
    except Reached:
        return "reached", "trains, converts or measures"
    except Hanging:
        return "hang", f"more than {SECONDS} s"
    except Exception as error:
        what = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        return ("refused" if is_refusal(error, argument, value) else "raw"), what
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "result", f"returned {result!r}"[:200]


def is_refusal(error, argument, value):
    """Whether the library refuses an argument by its name, or a file by its path."""
    of_files = (FileNotFoundError, NotADirectoryError, kl.CorruptedFileError)
    if isinstance(error, of_files):
        return str(value) in str(error)
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    own = last.tb_frame.f_globals.get("__name__", "").startswith("keras_lottery")
    named = re.search(rf"\b{re.escape(argument)}\b", str(error))
    return own and isinstance(error, ValueError) and named is not None


def _hang(*_):
    raise Hanging


def left_out(name):
    return any(re.fullmatch(pattern, name) for pattern in LEFT_OUT)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    x = np.random.default_rng(0).random((12, 4), np.float32)
    return finished(tmp_path_factory.mktemp("run"), (x, np.arange(12) % 3))


@pytest.fixture
def folder(monkeypatch, tmp_path, run):
    monkeypatch.chdir(tmp_path)
    stop(monkeypatch.setattr)
    return tmp_path


def stop(replace):
    """Stops before anything is trained, converted, measured or drawn."""

    def reached(*_, **__):
        raise Reached

    for kind in [Engine, *_subclasses(Engine)]:
        for name in ("train", "train_all"):
            if name in vars(kind):
                replace(kind, name, reached)
    for module in (search, transfer):
        replace(module, "begin", reached)
    for module in (keras_file, litert, saved_model):
        replace(module, "deliver", reached)
    replace(deploy_files, "_ask", reached)
    replace(deploy_tickets, "_try", reached)
    replace(sys.modules["keras_lottery.ship.deploy.shrink"], "_pruned", reached)
    replace(write, "panels", reached)
    evaluate = remembered(engine.evaluate)
    for module in (engine, fit, fits, evaluation):
        replace(module, "evaluate", evaluate)


def remembered(evaluate):
    """Evaluates nets of one shape on the same arrays once, since tracing takes long."""
    logs = {}

    def once(model, data):
        arrays = keras.tree.flatten(data)
        if not all(isinstance(array, np.ndarray) for array in arrays):
            return evaluate(model, data)
        key = (
            model.compiled,
            str(keras.tree.map_structure(np.shape, data)),
            *(tuple(weight.shape) for weight in model.weights),
            *((array.dtype, array.tobytes()) for array in arrays),
        )
        if key not in logs:
            logs[key] = evaluate(model, data)
        return logs[key]

    return once


def _subclasses(kind):
    return [each for sub in kind.__subclasses__() for each in [sub, *_subclasses(sub)]]


def test_every_public_name_has_a_good_call_or_a_reason(folder, run):
    names = [name for name in public() if not left_out(name)]
    missing = sorted(set(names) - good_calls(folder, run).keys())
    assert not missing, f"add good calls to `good_calls` for {missing}"


def test_every_public_module_says_what_is_public():
    modules = [getattr(kl, name) for name in kl.__all__]
    assert not [
        module.__name__
        for module in modules
        if isinstance(module, types.ModuleType) and not hasattr(module, "__all__")
    ]


@pytest.mark.slow
def test_wrong_arguments_are_refused_by_name_or_mean_something(folder, run):
    right = "refused", "meaningful"
    bad = [each for each in sweep(folder, run) if each.kind not in right]
    assert not bad, report(bad)
    assert (folder / PLACES["other"]).read_text() == "of the user"


def report(outcomes):
    lines = [f"{o.kind}: {o.name}({o.argument}={o.label}): {o.what}" for o in outcomes]
    return "\n".join(["", *lines])


if __name__ == "__main__":
    import sys
    import time

    start = time.process_time()
    with tempfile.TemporaryDirectory() as made, contextlib.chdir(made):
        x = np.random.default_rng(0).random((12, 4), np.float32)
        run = finished(Path(made, "run"), (x, np.arange(12) % 3))
        stop(setattr)
        found = []
        for each in sweep(Path(made), run, *sys.argv[1:]):
            found.append(each)
            if each.kind not in ("refused", "meaningful"):
                print(report([each]).strip(), flush=True)
    print(len(found), dict(collections.Counter(o.kind for o in found)))
    print(f"{time.process_time() - start:.0f} s of CPU")
