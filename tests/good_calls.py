"""A good call of every public name: its arguments, and what else is right for them.

`tests/test_arguments.py` makes each call with one wrong argument at a time. A new
public name needs a line in the function of its kind. A new argument of a known one
needs a word, such as `count`, only if some of the wrong values are right for it.
"""

import contextlib
import inspect
import io
import shutil
import types
from pathlib import Path

import keras
import numpy as np
import pandas as pd

import keras_lottery as kl
from keras_lottery.files import write_sealed
from keras_lottery.keras_bridge import architecture
from keras_lottery.ship.export.files import digests_of

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


def to_one(v, rho):
    return (1 + rho * v) / (1 + rho)


def shrink(v, rho):
    return kl.admm.soft_threshold(v, 0.1 / rho)


def made(folder, run):
    """What the calls are given: data, models, tickets and files."""
    of = types.SimpleNamespace(folder=folder, run=run)
    (of.folder / PLACES["other"]).write_text("of the user")
    shutil.copytree(of.run.directory, of.folder / "other_run", dirs_exist_ok=True)
    of.x = np.random.default_rng(0).random((12, 4), np.float32)
    of.y = np.arange(12) % 3
    of.data = of.x, of.y
    of.plain, of.masked = mlp(), kl.mask_model(mlp())
    of.normalised = keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization()]
    )
    of.pointwise = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.ZeroPadding2D(1),
            keras.layers.Conv2D(4, 3, 2),
            keras.layers.Conv2D(4, 1),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    kl.prune(of.masked, 0.5)
    of.masks, of.state = kl.get_masks(of.masked), kl.get_state(of.masked)
    of.masked_model = kl.mask_model(mlp())
    of.text = architecture.to_text(of.masked)
    of.ticket = kl.Ticket(
        of.masks, of.state, steps=3, trained=of.state, architecture=of.text
    )
    of.supermask = kl.learn_masks(mlp(), seed=0)
    of.scores = {
        name: np.random.default_rng(0).random(m.shape) for name, m in of.masks.items()
    }
    of.dense = kl.Masks.dense({name: m.shape for name, m in of.masks.items()})
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
    of.results = pd.DataFrame(table)
    of.supermaskable = kl.mask_model(mlp())
    of.measured = pd.DataFrame(
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
    of.tflite = of.folder / "model.tflite"
    of.tflite.write_bytes(b"no model")
    of.klc = of.folder / "model.klc"
    with contextlib.redirect_stdout(io.StringIO()):
        kl.save_compressed(of.masked, of.klc)
    write_sealed(
        of.folder / "reports.json", {"exports": [{"sha256": digests_of(of.klc)}]}
    )
    of.saved = of.folder / "saved.ticket"
    of.ticket.save(of.saved)
    of.classified = (of.data[0], of.data[1].astype("int32"))
    of.splits_of_run = kl.data.Splits(
        "mine",
        *of.classified,
        *of.classified,
        *of.classified,
        input_shape=(4,),
        classes=3,
    )
    of.searching = kl.LotteryTicketSearch(of.plain, [0.5], workers=0, engine="fit")
    of.adam = {"optimizer": "adam", "learning_rate": 0.1, "batch_size": 2, "steps": 3}
    of.recipe = kl.models.Recipe(**of.adam, rates={"hidden": 0.2})
    of.splits = {"test_data": of.data, "batch_size": 4}
    return of


def admm(of):
    """The alternating direction method of multipliers."""
    return {
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
    }


def callbacks(of):
    """What changes inside one `fit`."""
    return {
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
            {"final_sparsity": 0.9, "peak_step": 1, "end_step": 9, "data": of.data},
            peak_step="2",
            end_step="positive",
            frequency="positive",
            data="any",
        ),
        "kl.RigL": Good(
            {"sparsity": 0.5, "end_step": 9, "data": of.data, "frequency": 1},
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
        "kl.callbacks.mask_distance": Good({"one": of.masks, "other": of.dense}),
    }


def automatic(of):
    """Choices by validation."""
    return {
        "kl.automatic.auto_compress": Good(
            {
                "model": of.plain,
                "target": 0.5,
                "data": of.data,
                "validation_data": of.data,
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
                "model": of.plain,
                "target": 0.5,
                "data": of.data,
                "validation_data": of.data,
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
    }


def searches(of):
    """Searches, and what they give."""
    return {
        "kl.LotteryTicketSearch": Good(
            {"model": of.plain, "schedule": [0.5], "workers": 0},
            compact="flag",
            rewind_to="count",
            workers="count",
            allocation="none",
            prunable="list text",
            pretrained="text",  # Layers are looked for in `search`.
            wrong_models="",
        ),
        "search": Good(
            {
                "x": of.x,
                "y": of.y,
                "validation_data": of.data,
                "epochs": 2,
                "verbose": 0,
            },
            call=of.searching.search,
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
        "kl.Run": Good({"directory": of.folder}),
        "kl.merge_runs": Good(
            {"runs": [of.run.directory], "directory": of.folder / "merged"}
        ),
        "kl.Ticket": Good(
            {"masks": of.masks, "weights": of.state},
            step="count",
            steps="count",
            learning_rate="from_0",
            architecture="text",
        ),
        "save": Good({"path": of.folder / "a.ticket"}, call=of.ticket.save),
        "transfer": Good({"model": mlp()}, call=of.ticket.transfer, wrong_models="all"),
        "kl.compare_transfer": Good(
            {
                "ticket": of.ticket,
                "model": of.plain,
                "x": of.x,
                "y": of.y,
                "validation_data": of.data,
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
        "kl.load_ticket": Good({"path": of.saved}),
        "kl.results.verdict": Good(
            {"results": of.results}, margin="from_0", examples="positive"
        ),
    }


def allocations(of):
    """How many weights each layer keeps."""
    return {
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
            {"scores": of.scores, "masks": of.dense, "sparsity": 0.5},
            call=lambda scores, masks, sparsity: kl.allocation.Global()(
                scores, masks, sparsity
            ),
            sparsity="0",
        ),
        "kl.allocation.keep_by_layer": Good(
            {
                "scores": of.scores,
                "masks": of.dense,
                "keep": 21,
                "shares": {"hidden/kernel": 12.0, "output/kernel": 9.0},
            },
            keep="count",
        ),
        "kl.allocation.kept_after": Good(
            {"masks": of.masks, "sparsity": 0.5}, sparsity="0"
        ),
        "kl.allocation.largest": Good(
            {"scores": of.scores, "alive": of.dense, "keep": 3}, keep="count"
        ),
    }


def analyses(of):
    """What tickets and stored searches tell."""
    return {
        "kl.analysis.calibration_error": Good(
            {"probabilities": np.eye(3), "labels": np.arange(3)}, bins="positive"
        ),
        "kl.analysis.fast_gradient_sign": Good(
            {"model": of.masked, "data": of.data, "epsilon": 0.1},
            epsilon="from_0",
            wrong_models="uncompiled",
        ),
        "kl.analysis.instability": Good(
            {
                "model": of.masked,
                "state_a": of.state,
                "state_b": of.state,
                "data": of.data,
                "points": 2,
            },
            points="2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.interpolate": Good(
            {
                "model": of.masked,
                "state_a": of.state,
                "state_b": of.state,
                "data": of.data,
                "points": 2,
            },
            points="2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.layer_criticality": Good(
            {"model": of.masked, "checkpoints": {"start": of.state}, "data": of.data},
            replicates="0 2",
            wrong_models="unbuilt uncompiled subclassed",
        ),
        "kl.analysis.layer_densities": Good({"masks": of.masks}),
        "kl.analysis.mask_overlap": Good({"a": of.masks, "b": of.dense}),
        "kl.analysis.train_and_measure_instability": Good(
            {"tickets": of.ticket, "x": of.x, "y": of.y, **of.splits, "verbose": 0},
            pairs="positive",
            points="2",
        ),
        "kl.analysis.train_rewind_points": Good(
            {
                "model": of.plain,
                "x": of.x,
                "y": of.y,
                "at": [1],
                "epochs": 2,
                **of.splits,
            },
            wrong_models="unbuilt uncompiled subclassed",
            prunable="text list",
        ),
        "kl.analysis.weight_correlation": Good(
            {"before": of.state, "after": of.state, "p": 0.5}, p="", masks="none"
        ),
        "kl.analysis.weight_histograms": Good(
            {"initial": of.state, "final": of.state, "masks": of.masks, "bins": 2},
            bins="2",
        ),
        "kl.analysis.weight_movement": Good(
            {"initial": of.state, "final": of.state, "masks": of.masks}
        ),
        "kl.report.compare_runs": Good(
            {
                "directories": [of.run.directory, of.folder / "other_run"],
                "path": of.folder / "b.html",
                "figures": of.folder / "figures",
            },
            figures="text",
        ),
        "kl.report.write_report": Good(
            {
                "directory": of.run.directory,
                "path": of.folder / "a.html",
                "figures": of.folder / "figures",
            },
            directory="",
            figures="text",
        ),
        "kl.tensorboard.write_curves": Good(
            {"search": of.run, "directory": of.folder / "curves"}
        ),
        "kl.analysis.densities_by_level": Good({"search": of.run}),
        "kl.analysis.generalisation_gap": Good({"search": of.run, "on": "test"}),
        "kl.plot_files": Good({"table": of.measured, "path": of.folder / "a.png"}),
        "kl.plots.plot_search": Good(
            {"results": of.results, "path": of.folder / "b.png"}
        ),
    }


def structured(of):
    """What reaches over several layers."""
    return {
        "kl.compact": Good({"model": of.masked}, wrong_models="unbuilt subclassed"),
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
        "kl.inline": Good({"model": of.masked}, wrong_models="unbuilt subclassed"),
        "kl.narrow": Good(
            {
                "model": kl.models.bert_small(
                    (4,), 2, blocks=1, width=32, vocabulary=9
                ),
                "sparsity": 0.5,
                "data": np.ones((2, 4), "int32"),
            },
            wrong_models="unbuilt subclassed",
        ),
    }


def registries(of):
    """What is looked up by name."""
    return {
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
        "kl.repair.get": Good({"value": "admm"}),
    }


def files(of):
    """From a ticket to a file."""
    return {
        "kl.benchmark": Good(
            {"files": of.tflite, "rounds": 1, "seconds": 0.1},
            threads="positive",
            rounds="positive",
            seconds="above_0",
            threshold="real",
        ),
        "kl.deploy": Good(
            {
                "run": of.run.directory,
                "data": of.splits_of_run,
                "directory": of.folder / "out",
            },
            data="none",
            margin="from_0",
            objective="none",
            threads="positive",
            seconds="above_0",
        ),
        "kl.shrink": Good(
            {
                "model": of.plain,
                "data": of.classified,
                "directory": of.folder / "shrunk",
            },
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
        "kl.export.adapt_for_xnnpack": Good(
            {"model": of.pointwise}, wrong_models="unbuilt subclassed"
        ),
        "kl.export.check_file": Good({"path": of.klc}),
        "kl.export.explain_sparse": Good(
            {"model": of.pointwise}, wrong_models="unbuilt subclassed"
        ),
        "kl.export.to_c_array": Good(
            {"ticket_or_model_or_file": of.ticket, "path": of.folder / "a.c"},
            wrong_models="unbuilt",
        ),
        "kl.export.to_keras": Good(
            {
                "ticket_or_model": of.ticket,
                "path": of.folder / "a.keras",
                "dense": of.plain,
            },
            wrong_models="unbuilt",
        ),
        "kl.export.to_litert": Good(
            {"ticket_or_model": of.ticket, "path": of.folder / "a.tflite"},
            wrong_models="unbuilt",
        ),
        "kl.export.to_saved_model": Good(
            {"ticket_or_model": of.ticket, "path": of.folder / "a"},
            path="path",
            wrong_models="unbuilt",
        ),
        "kl.share_weights": Good(
            {"model": of.masked_model, "bits": 3}, bits="2", wrong_models="all"
        ),
        "kl.load_compressed": Good({"path": of.klc}),
        "kl.save_compressed": Good(
            {"model": of.masked, "path": of.folder / "b.klc"}, wrong_models="all"
        ),
    }


def masked(of):
    """Masked models."""
    return {
        "kl.Supermask": Good(
            {"network": of.supermaskable, "kind": "edge_popup", "sparsity": 0.5},
            sparsity="0",
        ),
        "kl.get_masks": Good({"model": of.masked}, wrong_models="all"),
        "kl.get_sparsity": Good({"model": of.masked}, wrong_models="all"),
        "kl.get_state": Good({"model": of.masked}, wrong_models="unbuilt subclassed"),
        "kl.set_masks": Good(
            {"model": of.masked, "masks": of.masks},
            wrong_models="all",
            optimizer="none",
        ),
        "kl.set_state": Good(
            {"model": of.masked, "state": of.state}, wrong_models="unbuilt subclassed"
        ),
        "kl.sparsity_summary": Good({"model": of.masked}, wrong_models="all"),
        "kl.strip_masks": Good({"model": of.masked}, wrong_models="unbuilt subclassed"),
        "kl.mask_model": Good(
            {"model": of.plain}, prunable="", wrong_models="unbuilt subclassed"
        ),
        "kl.learn_masks": Good(
            {"model": of.plain, "kind": "edge_popup", "sparsity": 0.5},
            sparsity="0",
            prunable="",
            wrong_models="unbuilt subclassed",
        ),
        "kl.learned_ticket": Good({"model": of.supermask}, wrong_models="all"),
        "kl.prune": Good(
            {"model": kl.mask_model(mlp()), "sparsity": 0.5},
            sparsity="0",
            rounds="positive",
            data="any",
            optimizer="none",
            wrong_models="all",
        ),
        "kl.recalibrate": Good(
            {"model": of.normalised, "data": np.zeros((4, 3), "float32")},
        ),
    }


def models(of):
    """The papers' networks."""
    return {
        "kl.models.Recipe": Good(
            {**of.adam, "rates": {"hidden": 0.2}},
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
                "recipe": of.recipe,
                "input_shape": (8, 8, 1),
                "classes": 10,
            },
            classes="positive",
        ),
        "kl.models.compile_model": Good(
            {"model": mlp(), "recipe": of.recipe},
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
        "kl.models.mobilenet": Good(
            {
                "stages": [(1, 2, 1, 1)],
                "stem": 2,
                "head": 2,
                "input_shape": (4, 4, 1),
            },
            stem="positive",
            head="positive",
            classes="positive",
        ),
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
    }


def pieces(of):
    """Repairs, rewinds, schedules and groupings."""
    return {
        "kl.repair.ADMM": Good({}, damping="from_0", rho="above_0", iterations="2"),
        "kl.repair.LeastSquares": Good({}, damping="from_0", choose=""),
        "kl.repair.SparseGPT": Good({}, damping="from_0", block="positive"),
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


KINDS = [
    admm,
    callbacks,
    automatic,
    searches,
    allocations,
    analyses,
    structured,
    registries,
    files,
    masked,
    models,
    pieces,
]


def good_calls(folder, run):
    """The good calls by public names; methods of a class are named after themselves."""
    of = made(folder, run)
    return {name: good for kind in KINDS for name, good in kind(of).items()}
