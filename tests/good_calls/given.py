"""What the calls are given: data, models, tickets and files."""

import contextlib
import io
import shutil
import types

import keras
import numpy as np
import pandas as pd

import keras_lottery as kl
from keras_lottery.files import write_sealed
from keras_lottery.keras_bridge import architecture
from keras_lottery.ship.export.files import digests_of
from tests.good_calls.good import PLACES


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


def finished(directory, data):
    """A search, as far as its dense net, in little time."""
    made = kl.LotteryTicketSearch(
        mlp(), [0.5], controls=None, engine="fit", workers=0, directory=directory
    )
    made.search(
        *data, validation_data=data, test_data=data, batch_size=6, epochs=1, verbose=0
    )
    return kl.Run.load(directory)


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
