"""A sweep: every public function and class with one wrong argument at a time.

The public names are found here, so that a new one is under the sweep at once: it needs
a good call in `good_calls`, or a reason in `LEFT_OUT`. Of each argument every value of
`WRONG` is tried. What comes of it has to be a `ValueError` of this library that names
the argument, before anything is trained, or a result that the good call says is
meaningful.
"""

import collections
import contextlib
import inspect
import io
import re
import shutil
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
from keras_lottery.files import write_sealed
from keras_lottery.keras_bridge import architecture
from keras_lottery.search import search
from keras_lottery.ship.deploy import files as deploy_files
from keras_lottery.ship.deploy import tickets as deploy_tickets
from keras_lottery.ship.export import keras_file, litert, saved_model
from keras_lottery.ship.export.files import digests_of
from keras_lottery.study import transfer
from keras_lottery.study.analysis import evaluation
from keras_lottery.study.report import write
from tests.models_zoo import Tagger

pytestmark = pytest.mark.once

WRONG = {
    "None": None,
    "text": "magnitud",
    "empty": "",
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "2": 2,
    "nan": float("nan"),
    "inf": float("inf"),
    "True": True,
    "[]": [],
    "shape": np.ones((3, 1)),
}
# What a path is tried with, beside those: a file of another kind, and below it.
PLACES = {"other": Path("data.npz"), "below": Path("data.npz/new")}
# A good call says by these words which wrong values are right for an argument.
WORDS = {
    "count": "0 2",
    "positive": "2",
    "real": "-1 0 1.5 2",
    "above_0": "1.5 2",
    "from_0": "0 1.5 2",
    "share": "0",
    "flag": "True",
    "path": "text",
    "seed": "0 2",
    "list": "[]",
    "any": " ".join(WRONG),
    "array": "shape",
    "text": "text",
    "none": "None",
}
# Wherever an argument has this name; a good call may say otherwise.
USUAL = {
    "seed": "seed",
    "verbose": "0 True",
    "exclude": "list",
    "batch_size": "positive",
    "steps": "positive",
    "epochs": "positive",
    "replicates": "positive",
    "card": "none",
    "name": "text",
    "directory": "path",
    "controls": "none list",
    "replace": "list",
}
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


def mlp():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, "relu", name="hidden"),
            keras.layers.Dense(3, name="output"),
        ],
        name="mlp",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    return model


class Good:
    """A good call: a function, its arguments, and words for what else is right."""

    def __init__(self, arguments, call=None, wrong_models="", **right):
        self.arguments, self.call, self.right = arguments, call, right
        self.wrong_models = wrong_models

    def is_right(self, argument, label, parameter):
        words = self.right.get(argument, USUAL.get(argument, ""))
        right = " ".join(WORDS.get(word, word) for word in words.split()).split()
        if parameter is not None and label != "shape":
            # What is the default is right; so is another flag.
            value = WRONG.get(label, inspect.Parameter.empty)
            if type(parameter.default) is bool and label == "True":
                return True
            if parameter.default is None and value is None:
                return True
        return label in right


def finished(directory, data):
    """A search, as far as its dense net, in little time."""
    made = kl.LotteryTicketSearch(
        mlp(), [0.5], controls=None, engine="fit", workers=0, directory=directory
    )
    made.search(
        *data, validation_data=data, test_data=data, batch_size=6, epochs=1, verbose=0
    )
    return kl.Run.load(directory)


def good_calls(folder, run):
    """A good call of every public name, and a run for those that read one."""
    (folder / PLACES["other"]).write_text("of the user")
    shutil.copytree(run.directory, folder / "other_run", dirs_exist_ok=True)
    x = np.random.default_rng(0).random((12, 4), np.float32)
    y = np.arange(12) % 3
    data = x, y
    plain, masked = mlp(), kl.mask_model(mlp())
    normalised = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization()]
    )
    pointwise = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.ZeroPadding2D(1),
            keras.layers.Conv2D(4, 3, 2),
            keras.layers.Conv2D(4, 1),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    kl.prune(masked, 0.5)
    masks, state = kl.get_masks(masked), kl.get_state(masked)
    masked_model = kl.mask_model(mlp())
    text = architecture.to_text(masked)
    ticket = kl.Ticket(masks, state, steps=3, trained=state, architecture=text)
    supermask = kl.learn_masks(mlp(), seed=0)
    scores = {
        name: np.random.default_rng(0).random(m.shape) for name, m in masks.items()
    }
    dense = kl.Masks.dense({name: m.shape for name, m in masks.items()})
    table = {
        "level": [0, 1],
        "replicate": [0, 0],
        "trial": [0, 0],
        "variant": ["ticket", "ticket"],
        "density": [1.0, 0.5],
        "steps": [3, 3],
        "early_stop_step": [3, 3],
        "sparsity": [0.0, 0.5],
        "start_step": [0, 0],
        "early_stop_val_accuracy": [0.9, 0.9],
        "early_stop_test_accuracy": [0.9, 0.9],
        "final_val_accuracy": [0.9, 0.9],
        "final_test_accuracy": [0.9, 0.9],
        "final_train_accuracy": [0.9, 0.9],
        "final_val_loss": [0.9, 0.9],
        "final_test_loss": [0.9, 0.9],
    }
    import pandas as pd

    results = pd.DataFrame(table)
    supermaskable = kl.mask_model(mlp())
    measured = pd.DataFrame(
        {
            "file": ["a", "b"],
            "format": ["litert"] * 2,
            "bytes": [1, 2],
            "gzip_bytes": [1, 2],
            "p50_us": [1.0, 2.0],
            "p90_us": [1.0, 2.0],
            "accuracy": [0.9, 0.8],
        }
    )
    tflite = folder / "model.tflite"
    tflite.write_bytes(b"no model")
    klc = folder / "model.klc"
    with contextlib.redirect_stdout(io.StringIO()):
        kl.save_compressed(masked, klc)
    write_sealed(folder / "reports.json", {"exports": [{"sha256": digests_of(klc)}]})
    saved = folder / "saved.ticket"
    ticket.save(saved)
    classified = (data[0], data[1].astype("int32"))
    splits_of_run = kl.data.Splits(
        "mine", *classified, *classified, *classified, input_shape=(4,), classes=3
    )

    def to_one(v, rho):
        return (1 + rho * v) / (1 + rho)

    def shrink(v, rho):
        return kl.admm.soft_threshold(v, 0.1 / rho)

    searching = kl.LotteryTicketSearch(plain, [0.5], workers=0, engine="fit")
    adam = {"optimizer": "adam", "learning_rate": 0.1, "batch_size": 2, "steps": 3}
    recipe = kl.models.Recipe(**adam, rates={"hidden": 0.2})
    splits = {"test_data": data, "batch_size": 4}
    good = {
        "kl.ADMMPruning": Good(
            {"sparsity": 0.5, "rho": 0.1, "growth": 1.1, "frequency": 2, "bits": 3},
            sparsity="0",
            bits="2",
            rounds="count",
            rho="above_0",
            growth="above_0",
            frequency="positive",
            allocation="",
        ),
        "kl.admm.solve": Good(
            {"prox_f": to_one, "prox_g": shrink, "start": np.zeros(2)},
            start="-1 0 1.5 2 shape",
            rho="above_0",
            relaxation="1.5",
            absolute="from_0",
            relative="from_0",
            max_iterations="2",
        ),
        "kl.admm.consensus": Good(
            {"prox_fs": [to_one, to_one], "prox_g": shrink, "start": np.zeros(2)},
            start="-1 0 1.5 2 shape",
        ),
        "kl.admm.LeastSquares": Good(
            {"a": np.eye(3), "b": np.ones(3)}, a="shape", b="shape"
        ),
        "kl.admm.soft_threshold": Good(
            {"v": np.ones(3), "amount": 0.1}, v="real [] shape", amount="from_0"
        ),
        "kl.admm.inverse": Good({"convexity": 0.1}, convexity="above_0"),
        "kl.admm.inverse_root": Good({"scale": 0.1}, scale="above_0"),
        "kl.admm.stochastic": Good(
            {
                "gradient": lambda x: x,
                "prox_g": shrink,
                "start": np.zeros(2),
                "step_size": kl.admm.inverse(1.0),
                "steps": 2,
            },
            start="real [] shape",
            rho="above_0",
        ),
        "kl.EarlyBird": Good(
            {"sparsity": 0.5, "threshold": 0.1, "queue": 3},
            sparsity="0",
            queue="positive",
            data="any",
        ),
        "kl.GradualPruning": Good(
            {"final_sparsity": 0.5, "begin_step": 0, "end_step": 2, "frequency": 1},
            final_sparsity="0",
            initial_sparsity="0",
            begin_step="count",
            end_step="count",
            frequency="positive",
            power="from_0",
            data="any",
        ),
        "kl.MovementPruning": Good(
            {"final_sparsity": 0.5, "begin_step": 1, "end_step": 2, "frequency": 1},
            final_sparsity="0",
            initial_sparsity="0",
            begin_step="positive",
            end_step="positive",
            frequency="positive",
            power="from_0",
        ),
        "kl.NeST": Good(
            {"final_sparsity": 0.9, "peak_step": 1, "end_step": 9, "data": data},
            peak_step="2",
            end_step="positive",
            frequency="positive",
            data="any",
        ),
        "kl.RigL": Good(
            {"sparsity": 0.5, "end_step": 9, "data": data, "frequency": 1},
            sparsity="none",
            end_step="positive",
            frequency="positive",
            alpha="",
            data="any",
        ),
        "kl.SET": Good(
            {"sparsity": 0.5, "end_step": 9, "frequency": 1},
            sparsity="none",
            end_step="positive",
            frequency="positive",
        ),
        "kl.automatic.auto_compress": Good(
            {
                "model": plain,
                "target": 0.5,
                "data": data,
                "validation_data": data,
                "evaluations": 1,
                "epochs": 0,
                "verbose": 0,
            },
            target="True",
            rounds="positive",
            epochs="count",
            admm_epochs="count",
            purify="from_0",
            evaluations="positive",
        ),
        "kl.automatic.choose_criteria": Good(
            {
                "model": plain,
                "target": 0.5,
                "data": data,
                "validation_data": data,
                "criteria": ["l1"],
            },
            data="any",
            target="True",
            rounds="positive",
        ),
        "kl.automatic.anneal": Good(
            {"energy": lambda point: 0.0, "size": 2, "evaluations": 1},
            size="positive",
            evaluations="positive",
        ),
        "kl.automatic.draw": Good(
            {"energy": lambda point: 0.0, "size": 2, "evaluations": 1},
            size="positive",
            evaluations="positive",
        ),
        "kl.callbacks.Checkpoints": Good({"epochs": [0, 1]}),
        "kl.callbacks.GroupLasso": Good(
            {"strength": 0.1, "groups": "shape"},
            strength="from_0",
            growth="from_0",
            frequency="positive",
        ),
        "kl.callbacks.QuantizationAware": Good({}),
        "kl.callbacks.SoftFilterPruning": Good(
            {"sparsity": 0.5},
            sparsity="0",
            data="any",
            every="positive",
        ),
        "kl.callbacks.SharedWeights": Good({}),
        "kl.callbacks.mask_distance": Good({"one": masks, "other": dense}),
        "kl.LotteryTicketSearch": Good(
            {"model": plain, "schedule": [0.5], "workers": 0},
            compact="flag",
            rewind_to="count",
            workers="count",
            allocation="none",
            prunable="list text",
            pretrained="text",  # Layers are looked for in `search`.
            wrong_models="",
        ),
        "search": Good(
            {"x": x, "y": y, "validation_data": data, "epochs": 2, "verbose": 0},
            call=searching.search,
            mask_epochs="above_0",
            mask_steps="positive",
            checkpoint="positive",
            eval_freq="positive",
            margin="from_0",
            test_data="none",
            callbacks="list",
            validation_split="0",
        ),
        "kl.Masks": Good({"arrays": {"hidden/kernel": [True, False]}}),
        "kl.Objective": Good({"name": "val_mine", "direction": "min"}),
        "kl.Run": Good({"directory": folder}),
        "kl.merge_runs": Good(
            {"runs": [run.directory], "directory": folder / "merged"}
        ),
        "kl.Supermask": Good(
            {"network": supermaskable, "kind": "edge_popup", "sparsity": 0.5},
            sparsity="0",
        ),
        "kl.Ticket": Good(
            {"masks": masks, "weights": state},
            step="count",
            steps="count",
            learning_rate="from_0",
            architecture="text",
        ),
        "save": Good({"path": folder / "a.ticket"}, call=ticket.save),
        "transfer": Good({"model": mlp()}, call=ticket.transfer, wrong_models="all"),
        "kl.allocation.ErdosRenyi": Good({}),
        "kl.allocation.Global": Good({}, floor="0"),
        "kl.allocation.Layerwise": Good({"rates": {"output": 0.1}}, rate="0"),
        "kl.allocation.ByOutput": Good(
            {
                "allocation": kl.allocation.Uniform(),
                "outputs": {"hidden/kernel": np.zeros((4, 6), int)},
            }
        ),
        "kl.allocation.Isomorphic": Good({}, floor="0"),
        "kl.allocation.OutlierWeighed": Good({}, spread="0", threshold="above_0"),
        "kl.allocation.Uniform": Good({}),
        "allocate": Good(
            {"scores": scores, "masks": dense, "sparsity": 0.5},
            call=lambda scores, masks, sparsity: kl.allocation.Global()(
                scores, masks, sparsity
            ),
            sparsity="0",
        ),
        "kl.allocation.keep_by_layer": Good(
            {
                "scores": scores,
                "masks": dense,
                "keep": 21,
                "shares": {"hidden/kernel": 12.0, "output/kernel": 9.0},
            },
            keep="count",
        ),
        "kl.allocation.kept_after": Good(
            {"masks": masks, "sparsity": 0.5}, sparsity="0"
        ),
        "kl.allocation.largest": Good(
            {"scores": scores, "alive": dense, "keep": 3}, keep="count"
        ),
        "kl.analysis.calibration_error": Good(
            {"probabilities": np.eye(3), "labels": np.arange(3)}, bins="positive"
        ),
        "kl.analysis.fast_gradient_sign": Good(
            {"model": masked, "data": data, "epsilon": 0.1},
            epsilon="from_0",
            wrong_models="uncompiled",
        ),
        "kl.analysis.instability": Good(
            {
                "model": masked,
                "state_a": state,
                "state_b": state,
                "data": data,
                "points": 2,
            },
            points="2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.interpolate": Good(
            {
                "model": masked,
                "state_a": state,
                "state_b": state,
                "data": data,
                "points": 2,
            },
            points="2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.layer_criticality": Good(
            {"model": masked, "checkpoints": {"start": state}, "data": data},
            replicates="0 2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.layer_densities": Good({"masks": masks}),
        "kl.analysis.mask_overlap": Good({"a": masks, "b": dense}),
        "kl.analysis.train_and_measure_instability": Good(
            {"tickets": ticket, "x": x, "y": y, **splits, "verbose": 0},
            pairs="positive",
            points="2",
        ),
        "kl.analysis.train_rewind_points": Good(
            {"model": plain, "x": x, "y": y, "at": [1], "epochs": 2, **splits},
            wrong_models="unbuilt uncompiled subclassed",
            prunable="text list",
        ),
        "kl.analysis.weight_correlation": Good(
            {"before": state, "after": state, "p": 0.5}, p=""
        ),
        "kl.analysis.weight_histograms": Good(
            {"initial": state, "final": state, "masks": masks, "bins": 2}, bins="2"
        ),
        "kl.analysis.weight_movement": Good(
            {"initial": state, "final": state, "masks": masks}
        ),
        "kl.benchmark": Good(
            {"files": tflite, "rounds": 1, "seconds": 0.1},
            threads="positive",
            rounds="positive",
            seconds="above_0",
            threshold="real",
        ),
        "kl.deploy": Good(
            {"run": run.directory, "data": splits_of_run, "directory": folder / "out"},
            data="none",
            margin="from_0",
            objective="none",
            threads="positive",
            seconds="above_0",
        ),
        "kl.shrink": Good(
            {"model": plain, "data": classified, "directory": folder / "shrunk"},
            sparsity="0",
            data="none",
            granularity="none",
            repair="none",
            epochs="count",
            loss="none",
            tolerance="from_0",
            objective="none",
            prefer="none",
            threads="positive",
            seconds="above_0",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.report.compare_runs": Good(
            {
                "directories": [run.directory, folder / "other_run"],
                "path": folder / "b.html",
                "figures": folder / "figures",
            },
            figures="text",
        ),
        "kl.report.write_report": Good(
            {
                "directory": run.directory,
                "path": folder / "a.html",
                "figures": folder / "figures",
            },
            directory="",
            figures="text",
        ),
        "kl.tensorboard.write_curves": Good(
            {"search": run, "directory": folder / "curves"}
        ),
        "kl.analysis.densities_by_level": Good({"search": run}),
        "kl.analysis.generalisation_gap": Good({"search": run, "on": "test"}),
        "kl.compact": Good({"model": masked}, wrong_models="unbuilt subclassed"),
        "kl.drop_blocks": Good(
            {
                "model": kl.models.bert_small(
                    (4,), 2, blocks=3, width=32, vocabulary=9
                ),
                "count": 1,
                "data": np.ones((2, 4), "int32"),
            },
            count="2",
            blocks="none",
            wrong_models="unbuilt subclassed",
        ),
        "kl.inline": Good({"model": masked}, wrong_models="unbuilt subclassed"),
        "kl.compare_transfer": Good(
            {
                "ticket": ticket,
                "model": plain,
                "x": x,
                "y": y,
                "validation_data": data,
                "epochs": 2,
                "workers": 0,
                "verbose": 0,
            },
            optimizer="none",
            eval_freq="positive",
            checkpoint="positive",
            workers="count",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.controls.get": Good({"value": "reinit"}),
        "kl.criteria.get": Good({"value": "magnitude"}),
        "kl.allocation.get": Good({"value": "global"}),
        "kl.filter_criteria.get": Good({"value": "l1"}),
        "kl.rewind.get": Good({"value": "weights"}),
        "kl.grouping.get": Good({"granularity": "weight"}),
        "kl.models.get": Good({"model": "lenet_300_100"}),
        "kl.models.recipe": Good({"model": "lenet_300_100"}),
        "kl.models.names": Good({}),
        "kl.schedules.get": Good({"schedule": "geometric"}),
        "kl.controls.trials": Good({"controls": ["reinit"]}, controls="none list text"),
        "kl.controls.resolve": Good({"controls": {"reinit": 1}}),
        "kl.data.load": Good({"name": "digits"}),
        "kl.export.adapt_for_xnnpack": Good(
            {"model": pointwise}, wrong_models="unbuilt subclassed"
        ),
        "kl.export.check_file": Good({"path": klc}),
        "kl.export.explain_sparse": Good(
            {"model": pointwise}, wrong_models="unbuilt subclassed"
        ),
        "kl.export.to_c_array": Good(
            {"ticket_or_model_or_file": ticket, "path": folder / "a.c"},
            wrong_models="unbuilt",
        ),
        "kl.export.to_keras": Good(
            {"ticket_or_model": ticket, "path": folder / "a.keras", "dense": plain},
            wrong_models="unbuilt",
        ),
        "kl.export.to_litert": Good(
            {"ticket_or_model": ticket, "path": folder / "a.tflite"},
            wrong_models="unbuilt",
        ),
        "kl.export.to_saved_model": Good(
            {"ticket_or_model": ticket, "path": folder / "a"},
            path="path",
            wrong_models="unbuilt",
        ),
        "kl.get_masks": Good({"model": masked}, wrong_models="all"),
        "kl.get_sparsity": Good({"model": masked}, wrong_models="all"),
        "kl.get_state": Good({"model": masked}, wrong_models="unbuilt subclassed"),
        "kl.set_masks": Good(
            {"model": masked, "masks": masks}, wrong_models="all", optimizer="none"
        ),
        "kl.set_state": Good(
            {"model": masked, "state": state}, wrong_models="unbuilt subclassed"
        ),
        "kl.share_weights": Good(
            {"model": masked_model, "bits": 3}, bits="2", wrong_models="all"
        ),
        "kl.sparsity_summary": Good({"model": masked}, wrong_models="all"),
        "kl.strip_masks": Good({"model": masked}, wrong_models="unbuilt subclassed"),
        "kl.mask_model": Good(
            {"model": plain}, prunable="", wrong_models="unbuilt subclassed"
        ),
        "kl.learn_masks": Good(
            {"model": plain, "kind": "edge_popup", "sparsity": 0.5},
            sparsity="0",
            prunable="",
            wrong_models="unbuilt subclassed",
        ),
        "kl.learned_ticket": Good({"model": supermask}, wrong_models="all"),
        "kl.load_compressed": Good({"path": klc}),
        "kl.load_ticket": Good({"path": saved}),
        "kl.save_compressed": Good(
            {"model": masked, "path": folder / "b.klc"}, wrong_models="all"
        ),
        "kl.models.Recipe": Good(
            {**adam, "rates": {"hidden": 0.2}},
            learning_rate="above_0",
            steps="positive",
            optimizer="",
            rates="",
            prunable="text",
            eval_freq="positive",
            jit_compile="True",
            steps_per_execution="positive",
            momentum="0",
            weight_decay="none from_0",
            drops="list",
            warm_up="count",
        ),
        "kl.models.Steps": Good(
            {"learning_rate": 0.1},
            learning_rate="above_0",
            drops="list",
            warm_up="count",
            end="positive",
        ),
        "kl.models.build": Good(
            {
                "builder": kl.models.lenet_300_100,
                "recipe": recipe,
                "input_shape": (8, 8, 1),
                "classes": 10,
            },
            classes="positive",
        ),
        "kl.models.compile_model": Good(
            {"model": mlp(), "recipe": recipe},
            learning_rate="above_0",
            wrong_models="unbuilt subclassed",
        ),
        "kl.models.bert_small": Good(
            {"input_shape": (4,), "vocabulary": 20, "width": 32, "blocks": 1},
            classes="positive",
            blocks="positive",
            vocabulary="positive",
        ),
        "kl.models.lenet_300_100": Good({"input_shape": (2, 2, 1)}, classes="positive"),
        "kl.models.resnet": Good(
            {"depth": 8, "input_shape": (4, 4, 1), "width": 4},
            width="positive",
            classes="positive",
        ),
        "kl.models.vgg": Good(
            {"blocks": (1,), "width": 2, "input_shape": (4, 4, 1)},
            width="positive",
            classes="positive",
        ),
        "kl.plot_files": Good({"table": measured, "path": folder / "a.png"}),
        "kl.plots.plot_search": Good({"results": results, "path": folder / "b.png"}),
        "kl.prune": Good(
            {"model": kl.mask_model(mlp()), "sparsity": 0.5},
            sparsity="0",
            rounds="positive",
            data="any",
            optimizer="none",
            wrong_models="all",
        ),
        "kl.recalibrate": Good(
            {"model": normalised, "data": np.zeros((4, 3), "float32")},
        ),
        "kl.repair.ADMM": Good({}, damping="from_0", rho="above_0", iterations="2"),
        "kl.repair.LeastSquares": Good({}, damping="from_0", choose=""),
        "kl.repair.SparseGPT": Good({}, damping="from_0", block="positive"),
        "kl.repair.get": Good({"value": "admm"}),
        "kl.results.verdict": Good(
            {"results": results}, margin="from_0", examples="positive"
        ),
        "kl.rewind.FineTune": Good({"steps": 3}, learning_rate="from_0"),
        "kl.rewind.rewind_step": Good(
            {"rewind_to": "1ep", "steps_per_epoch": 3, "steps": 9},
            rewind_to="count",
            steps_per_epoch="positive",
        ),
        "kl.schedules.Schedule": Good({"sparsities": (0.5,)}),
        "kl.schedules.geometric": Good({"rate": 0.2, "levels": 3}, levels="positive"),
        "kl.schedules.linear": Good({"rate": 0.2, "levels": 3}, levels="positive"),
        "kl.schedules.one_shot": Good({"sparsity": 0.5}),
        "kl.grouping.Blocks": Good(
            {"inputs": 2, "outputs": 1}, inputs="2", outputs="2"
        ),
        "kl.grouping.ByLayer": Good({"groupings": {"a": kl.grouping.Blocks(2, 1)}}),
        "kl.grouping.NOfM": Good({"n": 1, "m": 4}, n="2", m="2"),
    }
    good["kl.analysis.weight_correlation"].right["masks"] = "none"
    return good


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
