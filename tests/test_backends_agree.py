"""The same scores and tickets on every backend that is installed."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.keras_bridge.backends import BACKENDS
from tests.models_zoo import outputs

ROOT = Path(__file__).parents[1]
CRITERIA = ("magnitude", "snip", "grasp", "synflow", "obd", "taylor", "fisher")
INSTALLED = [name for name in BACKENDS if importlib.util.find_spec(name)]

pytestmark = [pytest.mark.slow, pytest.mark.once]

# Scores from one set of weights and data, and a search with its files.
CODE = """
import sys
import keras, numpy as np
import keras_lottery as kl
from keras_lottery.tickets import Snapshot

folder, *criteria = sys.argv[1:]
x = keras.Input((6,))
y = keras.layers.Dense(8, "tanh")(x)
model = keras.Model(x, keras.layers.Dense(3)(keras.layers.BatchNormalization()(y)))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("sgd", loss, metrics=["accuracy"])
rng = np.random.default_rng(0)
for variable in model.variables:
    if "float" in variable.dtype and "moving" not in variable.name:
        variable.assign(rng.normal(size=variable.shape))
data = rng.normal(size=(24, 6)).astype("float32"), np.arange(24) % 3
masked = kl.mask_model(model)
state = kl.layers.get_state(masked)
snapshot = Snapshot.untrained(
    kl.get_masks(masked), state, rng=rng, shared_model=masked, data=data
)
found = {}
for name in criteria:
    for weight, score in kl.criteria.get(name)(snapshot).items():
        found[f"{name} {weight}".replace("/", " ")] = score
np.savez(f"{folder}/scores.npz", **found)
made = kl.LotteryTicketSearch(lambda: model, [0.5, 0.75], directory=f"{folder}/run")
made.search(*data, validation_data=data, batch_size=8, epochs=2, verbose=0)
made.ticket(2).save(f"{folder}/best.ticket")
kl.export.to_litert(made.ticket(2), f"{folder}/best.tflite", test_data=data)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folders = {}
    for name in INSTALLED:
        folders[name] = folder = tmp_path_factory.mktemp(name)
        env = os.environ | {"KERAS_BACKEND": name, "PYTHONPATH": str(ROOT)}
        arguments = [sys.executable, "-c", CODE, str(folder), *CRITERIA]
        run = subprocess.run(arguments, env=env, capture_output=True, text=True)
        assert run.returncode == 0, (name, run.stderr[-2000:])
    return folders


@pytest.mark.parametrize("other", INSTALLED[1:])
def test_scores_are_the_same(runs, other):
    one, two = (np.load(runs[b] / "scores.npz") for b in (INSTALLED[0], other))
    assert len(one.files) == 2 * len(CRITERIA)
    for name in one.files:
        largest = abs(one[name]).max()
        np.testing.assert_allclose(two[name], one[name], atol=1e-5 * largest, rtol=0)


@pytest.mark.parametrize("other", INSTALLED[1:])
def test_a_search_finds_the_same_tickets(runs, other):
    one, two = (kl.load_ticket(runs[b] / "best.ticket") for b in (INSTALLED[0], other))
    assert one.masks == two.masks
    for name, array in one.trained.items():
        np.testing.assert_allclose(two.trained[name], array, atol=1e-4)


@pytest.mark.parametrize("name", INSTALLED[1:])
def test_a_ticket_opens_on_tensorflow_and_its_file_computes_the_same(runs, name):
    from ai_edge_litert.interpreter import Interpreter

    model = kl.load_ticket(runs[name] / "best.ticket").trained_model()
    x = np.random.default_rng(1).normal(size=(1, 6)).astype("float32")
    litert = Interpreter(str(runs[name] / "best.tflite"))
    (found,) = litert.get_signature_runner("serving_default")(
        **dict.fromkeys(litert.get_signature_list()["serving_default"]["inputs"], x)
    ).values()
    np.testing.assert_allclose(found, outputs(model, x), atol=1e-5)
