"""Models that keep more than variables: vocabularies, recurrent states, fixed batches.

Each public function gives a model of equal outputs, or refuses it clearly; the given
model stays as it is.
"""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.layers.copying import duplicate
from keras_lottery.keras_bridge.layers.recurrent import recurrent_states
from keras_lottery.structured import scratch
from tests.models_zoo import KERAS

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
NUMBERS = np.array([[10], [20], [30], [10]])
WORDS = np.array([["a b"], ["b c"], ["c"], ["a"]])


def model_of(layer, shape, dtype, batch=None, compiled=True):
    x = keras.Input(shape, batch, dtype)
    y = layers.Dense(6, "relu")(layer(x))
    model = keras.Model(x, layers.Dense(2)(y))
    if compiled:
        model.compile("sgd", "mse")
    return model


@keras.saving.register_keras_serializable("unusual")
class Counts(layers.Layer):
    """Keeps a number in no variable, and saves it itself."""

    shift = 0.0

    def save_own_variables(self, store):
        store["shift"] = np.array(self.shift)

    def load_own_variables(self, store):
        self.shift = float(np.array(store["shift"]))

    def call(self, x):
        return x + self.shift


def lookup(kind, mode):
    if mode == "tf_idf" and KERAS == (3, 12):
        pytest.skip("Keras 3.12 cannot load lookups that were adapted for tf_idf")
    layer = getattr(layers, kind)(output_mode=mode)
    data = WORDS if kind == "TextVectorization" else NUMBERS
    data = data.astype(int if kind == "IntegerLookup" else str)
    layer.adapt(data)
    model = model_of(layer, (1,), "int64" if kind == "IntegerLookup" else "string")
    return model, keras.ops.convert_to_tensor(data)


def own():
    layer = Counts()
    layer.shift = 3.0
    return model_of(layer, (3,), "float32"), np.ones((4, 3), "float32")


VOCABULARIES = {
    f"{kind}-{mode}": functools.partial(lookup, kind, mode)
    for kind in ("IntegerLookup", "StringLookup", "TextVectorization")
    for mode in ("multi_hot", "tf_idf")
} | {"own": own}


def outputs(model, x):
    return np.array(keras.ops.convert_to_numpy(model(x)))


def halved(model):
    masked = kl.mask_model(model)
    kl.prune(masked, 0.5)
    return masked


COPIES = {
    "duplicate": duplicate,
    "mask_model": kl.mask_model,
    "strip_masks": lambda model: kl.layers.strip_masks(kl.mask_model(model)),
    "compact": kl.compact,
    "compact, masked": lambda model: kl.compact(kl.mask_model(model)),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("build", VOCABULARIES.values(), ids=VOCABULARIES)
def test_copies_keep_what_lies_in_no_variable(build, tmp_path):
    model, x = build()
    expected = outputs(model, x)
    for name, copied in COPIES.items():
        new = copied(model)
        np.testing.assert_array_equal(outputs(new, x), expected, err_msg=name)
    new.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(again, x), expected)
    masked = halved(model)
    starts = scratch(masked, kl.layers.get_state(masked), 1)
    for start in starts.values():
        assert outputs(start.model, x).shape == expected.shape
    # The smaller network adds up fewer numbers, in another order.
    np.testing.assert_allclose(
        outputs(starts["original"].model, x), outputs(masked, x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.tensorflow
@pytest.mark.parametrize("build", VOCABULARIES.values(), ids=VOCABULARIES)
def test_files_without_room_for_it_refuse_it(build, tmp_path):
    model, _ = build()
    with pytest.raises(ValueError, match="beside its variables"):
        kl.save_compressed(kl.mask_model(model), tmp_path / "model.klc")
    with pytest.raises(ValueError, match="beside its variables"):
        architecture.to_text(model)


@pytest.mark.tensorflow
def test_vocabularies_that_files_of_keras_mix_up_are_refused():
    """Keras writes a line for each word."""
    layer = layers.StringLookup(output_mode="multi_hot")
    layer.adapt([["a\nb"], ["c"]])
    with pytest.raises(ValueError, match="cannot be copied"):
        duplicate(model_of(layer, (1,), "string"))


def recurrent(stateful=True):
    lstm = layers.LSTM(3, stateful=stateful, unroll=True)
    return halved(model_of(lstm, (3, 2), "float32", batch=4)), (8, 3, 2)


def fixed():
    layer = layers.Dense(5, "relu")
    return halved(model_of(layer, (3,), "float32", batch=4)), (8, 3)


def used(build):
    """A model that has been used, data for it, and its states."""
    model, shape = build()
    x = RNG.normal(size=shape).astype("float32")
    model(x[:4])
    return model, (x, np.ones((8, 2), "float32")), states(model)


def states(model):
    arrays = [np.array(keras.ops.convert_to_numpy(v)) for v in recurrent_states(model)]
    return arrays + [np.array(array) for array in model.get_weights()]


def assert_unchanged(model, before):
    for one, other in zip(states(model), before, strict=True):
        np.testing.assert_array_equal(one, other)


EXPORTS = {
    "to_keras": (".keras", {}),
    "to_saved_model": ("", {}),
    "to_litert": (".tflite", {}),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("build", [recurrent, fixed])
def test_exports_check_in_the_models_batches_and_leave_its_state(
    build, export, tmp_path
):
    model, (x, _), before = used(build)
    suffix, options = EXPORTS[export]
    path = tmp_path / f"model{suffix}"
    report = getattr(kl.export, export)(model, path, **options)
    assert report.max_difference < 1e-5
    assert report.checked_on == "32 random rows"
    assert_unchanged(model, before)
    report = getattr(kl.export, export)(
        model, path, test_data=(x[:5], np.ones((5, 2), "float32")), **options
    )
    assert report.metrics == pytest.approx(report.keras_metrics, rel=1e-5)


@pytest.mark.tensorflow
def test_eight_bits_are_calibrated_in_the_models_batches(tmp_path):
    model, (x, _), before = used(fixed)
    report = kl.export.to_litert(
        model, tmp_path / "m.tflite", quantize="int8", representative_data=x
    )
    assert report.checked_on == "8 rows of representative data"
    assert_unchanged(model, before)


@pytest.mark.parametrize("build", [recurrent, fixed])
def test_analyses_take_the_models_batches_and_leave_its_state(build):
    model, data, before = used(build)
    state = kl.layers.get_state(model)
    moved = {name: array + (array != 0) for name, array in state.items()}
    table = kl.analysis.layer_criticality(
        model, {"moved": moved}, data, objective="val_loss"
    )
    assert len(table) and np.isfinite(table.select_dtypes("number")).all(axis=None)
    barrier = kl.analysis.instability(
        model, state, moved, data, 3, objective="val_loss"
    )
    assert np.isfinite(barrier)
    assert_unchanged(model, before)


CRITERIA = ["fisher", "grasp", "obd", "snip", "taylor"]


@pytest.mark.parametrize("build", [recurrent, fixed])
def test_criteria_take_the_models_batches_and_leave_its_state(build):
    model, (x, y), before = used(build)
    for criterion in CRITERIA:
        masks = kl.pruning.masks_after(model, 0.6, criterion, data=(x, y))
        assert_unchanged(model, before)
        for state in recurrent_states(model):
            state.assign(np.zeros(state.shape))
        # Where the model has been does not count.
        assert kl.pruning.masks_after(model, 0.6, criterion, data=(x, y)) == masks
        for state, array in zip(recurrent_states(model), before, strict=False):
            state.assign(array)
        with pytest.raises(ValueError, match="Received: 7 examples"):
            kl.prune(model, 0.7, criterion, data=(x[:7], y[:7]))


# Keras does not train a stateful layer on torch: its states change in place.
TRAINED = [fixed] if keras.backend.backend() == "torch" else [recurrent, fixed]


@pytest.mark.parametrize("build", TRAINED)
def test_gradients_in_fit_take_the_models_batches(build):
    model, (x, y), _ = used(build)
    callback = kl.RigL(None, 3, (x, y), frequency=1)
    model.fit(x, y, 4, callbacks=[callback], verbose=0)
    assert kl.get_sparsity(model) == pytest.approx(0.5, abs=0.02)


def test_activations_of_filters_take_the_models_batches():
    model, data, before = used(fixed)
    kl.prune(model, 0.6, "activation", granularity="filter", data=data)
    assert len(states(model)) == len(before)


def searched(model, data, **options):
    made = kl.LotteryTicketSearch(
        model, [0.6], objective="val_loss", controls=(), workers=0
    )
    fit = {"validation_data": data, "batch_size": 4, "epochs": 2, "verbose": 0}
    return made.search(*data, **fit | options).drop(columns="seconds")


@pytest.mark.parametrize("build", TRAINED)
def test_searches_take_the_models_batches_and_leave_its_state(build):
    if build is recurrent and KERAS == (3, 12) and BACKEND == "tensorflow":
        pytest.skip("on TensorFlow, states of Keras 3.12 are not trained in a search")
    model, data, before = used(build)
    table = searched(model, data)
    assert np.isfinite(table["final_val_loss"]).all()
    assert_unchanged(model, before)
    # Where the model has been, and what was trained before, does not count.
    model(data[0][4:])
    assert searched(model, data).equals(table)
    few = tuple(array[:7] for array in data)
    for wrong in ({"batch_size": 2}, {"validation_data": few}):
        with pytest.raises(ValueError, match=r"takes batches of 4 .*Received: batch_s"):
            searched(model, data, **wrong)


def transferred(model, data):
    ticket = kl.Ticket(
        kl.get_masks(model),
        kl.layers.get_state(model),
        architecture=architecture.to_text(model),
    )
    kl.compare_transfer(
        ticket,
        kl.layers.strip_masks(model),
        *data,
        validation_data=data,
        objective="val_loss",
        controls=(),
        batch_size=4,
        epochs=1,
        workers=0,
        verbose=0,
    )


def interpolated(model, data):
    state = kl.layers.get_state(model)
    kl.analysis.interpolate(model, state, state, data, 3, objective="val_loss")


OTHERS = {
    "interpolate": interpolated,
    "compare_transfer": transferred,
    "learn_masks": lambda model, data: kl.learn_masks(model),
    "share_weights": lambda model, data: kl.share_weights(kl.mask_model(model), 2),
}


@pytest.mark.once
@pytest.mark.parametrize("name", OTHERS)
def test_what_reads_or_copies_a_model_leaves_its_state(name):
    for build in (recurrent, fixed) if KERAS > (3, 12) else (fixed,):
        model, data, before = used(build)
        OTHERS[name](model, data)
        assert_unchanged(model, before)


TRAINING = {
    "admm": lambda data: kl.ADMMPruning(0.6),
    "early_bird": lambda data: kl.EarlyBird(0.6, 0.9, queue=2),
    "nest": lambda data: kl.NeST(0.6, 3, 5, data, frequency=1),
}


@pytest.mark.once
def test_callbacks_take_the_models_batches():
    for build in (recurrent, fixed):
        for make in TRAINING.values():
            model, data, _ = used(build)
            with warnings.catch_warnings():
                # These trainings are too short for what they are asked.
                warnings.simplefilter("ignore")
                model.fit(*data, 4, 2, callbacks=[make(data)], verbose=0)
            assert np.isfinite(outputs(model, data[0][:4])).all()
