"""The fused engine trains as `fit` does, and says what it leaves to it."""

import time
import warnings

import keras
import numpy as np
import pytest

from keras_lottery.engines import fused, make
from keras_lottery.keras_bridge.layers import mask_model, named_masks
from keras_lottery.keras_bridge.layers.state import read
from tests.engines.small_training import (
    CASES,
    assert_alike,
    assert_zeros,
    data,
    engine_of,
    examples,
    made,
    model,
    ticket,
    untouched,
)
from tests.models_zoo import needs_muon

pytestmark = pytest.mark.fused

MUON = pytest.param("muon", marks=needs_muon)


def both(case="adam", of=None, steps=40, settings=None, **kwargs):
    """What `fit` and the fused engine make of a ticket."""
    work = ticket(untouched(case), steps, **kwargs)
    engines = [
        made(name, case, of, **(settings or {}))
        if of or settings
        else engine_of(name, case)
        for name in ("fit", "fused")
    ]
    return [engine.train(work, seed=7) for engine in engines], work


# Dropout and statistics of batches are in "momentum", too.
@pytest.mark.parametrize("case", [*sorted(CASES.keys() - {"dropout", "muon"}), MUON])
def test_it_trains_as_fit_does(case):
    trainings, trained = both(case, steps=200)
    assert_alike(*trainings)
    if case != "muon":
        assert_zeros(trainings[1], trained.masks)
    assert np.isfinite(trainings[1].curve["val_loss"]).all()
    # Early stop and end are told apart.
    assert len(trainings[1].curve["step"]) == 20


@pytest.mark.parametrize("case", ["adam", MUON])
def test_its_steps_leave_pruned_weights_at_zero_themselves(case):
    engine = engine_of("fused", case)
    engine._start(ticket(untouched(case), 30))
    engine._compiled().train(engine.data.order(0, 0), 0, 10)
    for mask, weight in named_masks(engine.model).values():
        assert (read(weight)[~read(mask)] == 0).all()
        assert (read(weight)[read(mask)] != 0).all()


def test_a_schedule_is_entered_anywhere():
    trainings, _ = both("momentum", step=37, steps=60)
    assert_alike(*trainings)
    constant, _ = both("momentum", step=37, steps=60, learning_rate=1e-3)
    assert_alike(*constant)
    assert constant[0].curve["val_loss"] != trainings[0].curve["val_loss"]


def test_weights_of_classes_and_examples_count():
    by_class, _ = both(settings={"class_weight": {0: 3.0, 2: 0.1}})
    assert_alike(*by_class)
    x, y = examples(165, 1)
    weighted = data(train=(x, y, np.where(y == 0, 3.0, np.where(y == 2, 0.1, 1.0))))
    work = ticket(untouched("adam"), 40)
    assert_alike(by_class[1], made("fused", "adam", weighted).train(work, seed=7))
    plain = engine_of("fit", "adam").train(work, seed=7)
    assert by_class[1].curve["val_loss"] != plain.curve["val_loss"]


def test_few_data_are_one_batch_and_validation_goes_over_all_in_batches(monkeypatch):
    for module in ("evaluation", "loop_tensorflow", "loop_jax"):
        monkeypatch.setattr(f"keras_lottery.engines.{module}.EVALUATION_BATCH", 16)
    x, y = examples(50, 2)
    weights = np.linspace(0, 2, 50)
    parts = {"validation": (x, y, weights), "test": None}
    trainings, _ = both(of=data(n=9, shuffle=False, **parts), steps=20)
    assert_alike(*trainings)


def test_a_model_of_several_inputs_and_outputs():
    def build():
        keras.utils.set_random_seed(0)
        one, other = keras.Input((3,), name="one"), keras.Input((2,), name="other")
        hidden = keras.layers.Concatenate()([one, other])
        hidden = keras.layers.Dense(6, "relu")(hidden)
        outputs = [keras.layers.Dense(1, name=name)(hidden) for name in "ab"]
        built = keras.Model([one, other], outputs)
        built = mask_model(built)
        built.compile("adam", ["mse", "mae"], metrics={"b": "accuracy"})
        return built

    rng = np.random.default_rng(0)
    x = [rng.normal(size=(40, 3)), rng.normal(size=(40, 2))]
    y = [x[0][:, :1], x[1][:, :1]]
    trainings = []
    for name in ("fit", "fused"):
        engine = make(
            name, build(), data(train=(x, y), validation=(x, y), test=None), 9
        )
        trainings.append(engine.train(ticket(engine.model, 9), 0))
    assert_alike(*trainings)


def test_loss_scaling():
    trainings = []
    for name in ("fit", "fused"):
        scaled = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(1e-3), dynamic_growth_steps=8
        )
        engine = make(name, model(optimizer=scaled), data(), 30)
        trainings.append(engine.train(ticket(engine.model, 30), 0))
        # It grew: the steps were taken.
        assert float(scaled.dynamic_scale) == 2**18
    assert_alike(*trainings)


def test_twice_is_the_same_to_the_bit():
    engine, start = engine_of("fused", "momentum"), untouched("momentum")
    work, another = ticket(start, 50), ticket(start, 20, seed=6)
    one, _, other = (engine.train(each, 3) for each in (work, another, work))
    for name, value in one.final.items():
        np.testing.assert_array_equal(value, other.final[name])
    assert one.curve == other.curve


def test_it_is_compiled_ahead():
    engine, work = made("fused", "momentum"), ticket(untouched("momentum"), 30)
    engine.prepare()
    compiled = engine._loop
    assert compiled
    one, other = engine.train(work, 3), engine_of("fused", "momentum").train(work, 3)
    assert engine._loop is compiled
    assert one.curve == other.curve
    for name, value in one.final.items():
        np.testing.assert_array_equal(value, other.final[name])


@pytest.mark.once
def test_many_engines_are_no_retracing(caplog):
    for _ in range(6):
        made("fused", "dropout").prepare()
    assert "retracing" not in caplog.text


def test_seconds_are_those_of_training(monkeypatch):
    engine, work = engine_of("fused", "adam"), ticket(untouched("adam"), 40)
    engine.train(work, 0)  # Everything is compiled.
    pauses = []

    def slowed(function):
        def slow(*args):
            pauses.append(0.3)
            time.sleep(0.3)
            return function(*args)

        return slow

    for name in ("_score", "_compiled"):
        monkeypatch.setattr(engine, name, slowed(getattr(engine, name)))
    began = time.perf_counter()
    seconds = engine.train(work, 0).metrics["seconds"]
    # On a busy computer, too.
    assert 0 < seconds < time.perf_counter() - began - sum(pauses)


class OwnStep(keras.Model):
    def train_step(self, *args):
        return super().train_step(*args)


@pytest.mark.once
def test_text_is_left_to_fit():
    text = data(test=(np.array(["a"]), np.zeros(1)))
    assert "not arrays of numbers" in fused.obstacle(model(), text)


@pytest.mark.parametrize(
    "reason, settings",
    [
        ("its own `train_step`", {"model": {"kind": OwnStep}}),
        ("run_eagerly=True", {"model": {"run_eagerly": True}}),
        (
            r"callbacks need `fit` \(EarlyStopping\)",
            {"callbacks": [keras.callbacks.EarlyStopping("val_loss")]},
        ),
    ],
)
def test_it_says_in_one_line_what_it_leaves_to_fit(reason, settings):
    settings = dict(settings)
    of = model(**settings.pop("model", {}))
    parts = data()
    with pytest.warns(UserWarning, match=rf"^engine='fused' .*'fit'.*{reason}") as seen:
        engine = make("fused", of, parts, 20, **settings)
    assert engine.name == "fit"
    # Keras 3.12 has deprecations of its own.
    told = [str(each.message) for each in seen if each.category is UserWarning]
    assert len(told) == 1 and "\n" not in told[0]
    assert make("auto", of, parts, 10**6, **settings).name == "fit"


def test_data_that_do_not_fit_are_left_to_fit(monkeypatch):
    monkeypatch.setattr(fused, "free_memory", lambda: 30_000.0)
    with pytest.warns(UserWarning, match="more than half of the 0.0 GB"):
        assert make("fused", model(), data(), 20).name == "fit"


@pytest.mark.tensorflow
def test_xla_is_for_what_it_makes_faster():
    def compiled(*layers):
        built = mask_model(keras.Sequential([keras.Input((8, 1)), *layers]))
        built.compile("adam", "mse", metrics=["accuracy"])
        x = np.ones((12, 8, 1), "float32")
        parts = {"train": (x, x), "validation": (x, x), "test": None}
        return make("fused", built, data(**parts), 9)._compiled()

    class Python(keras.layers.Layer):
        def call(self, x):
            import tensorflow as tf

            # XLA cannot call Python.
            one = tf.ensure_shape(tf.py_function(lambda: 1.0, [], x.dtype), [])
            return x + one

    dense = keras.layers.Dense(1)
    assert compiled(dense).xla
    assert not compiled(keras.layers.Dropout(0.5), dense).xla
    assert not compiled(keras.layers.Conv1D(1, 3, padding="same"), dense).xla
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not compiled(dense, Python()).xla


@pytest.mark.tensorflow
def test_data_sets_are_left_to_fit():
    import tensorflow as tf

    stream = tf.data.Dataset.from_tensor_slices(examples(32, 1)).batch(8)
    with pytest.warns(UserWarning, match=r"the data are a `tf.data.Dataset`"):
        engine = make("fused", model(), data(train=stream), 20)
    assert engine.name == "fit"


def test_what_does_not_compile_is_left_to_fit(monkeypatch):
    engine = make("fused", model(), data(), 20)
    monkeypatch.setattr(fused, "_loop", lambda engine: _Broken())
    with pytest.warns(UserWarning, match=r"does not compile \(TypeError: no\)"):
        one = engine.train(ticket(engine.model, 20), 0)
    assert one.curve["step"] == [10, 20]


class _Broken:
    def compile(self):
        raise TypeError("no\nmore")
