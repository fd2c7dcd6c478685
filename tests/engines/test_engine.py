"""What every engine does."""

import keras
import numpy as np
import pytest

from keras_lottery.engines import Facts, Objective, Task, make
from keras_lottery.keras_bridge import architecture, backends
from keras_lottery.keras_bridge.layers import mask_model
from tests.engines.small_training import (
    assert_alike,
    assert_zeros,
    data,
    engine_of,
    made,
    model,
    ticket,
    untouched,
)

NAMES = ["fit", pytest.param("fused", marks=pytest.mark.fused)]
NOT_JAX = keras.backend.backend() != "jax"
STACKED = pytest.param(
    "vectorized", marks=pytest.mark.skipif(NOT_JAX, reason="JAX alone stacks tickets")
)


def nan_ticket(of):
    """A ticket that no training makes finite."""
    good = ticket(of, 40)
    weights = {
        name: value * np.nan if value.dtype.kind == "f" else value
        for name, value in good.weights.items()
    }
    return type(good)(good.masks, weights, 0, 40)


@pytest.mark.parametrize("name", [*NAMES, STACKED])
def test_many_tickets_are_each_trained_as_alone(name):
    case = "dropout" if name == "vectorized" else "momentum"
    one, start = engine_of(name, case), untouched(case)
    tasks = [
        Task(ticket(start, 40, seed=1), 1),
        Task(lambda model, data: ticket(start, 40, density=0.7, seed=2), 2),
        Task(nan_ticket(start), 1),
        Task(ticket(start, 30, step=7, learning_rate=0.01, seed=3), 1),
    ]
    tickets = [task.make(one.model, one.data.examples) for task in tasks]
    tasks[1] = Task(lambda model, data: tickets[1], 2)
    waiting, seen = tasks[:], {}
    done = one.train_all(waiting, lambda task, reached: seen.update({task: reached}))
    found = {task: (facts, result) for task, facts, result in done}
    assert not waiting and found.keys() == set(tasks)
    results = [found[task][1] for task in tasks]
    assert [found[task][0] for task in tasks] == [Facts.of(one) for one in tickets]
    assert isinstance(results[2], FloatingPointError)
    assert "at step 10" in str(results[2])
    assert [seen[tasks[i]].step for i in (0, 1, 3)] == [40, 40, 30]
    last = seen[tasks[3]]
    assert last.epoch == last.epochs == 37 / one.data.steps_per_epoch
    assert last.loss in results[3].curve["val_loss"]
    alone = engine_of("fit", case)
    for i in (0, 1, 3):
        assert_alike(alone.train(tickets[i], tasks[i].seed), results[i])
        assert_zeros(results[i], tickets[i].masks)
        assert bool(results[i].rewind_point) == (i < 3)


@pytest.mark.parametrize("name", [*NAMES, STACKED])
def test_a_training_ends_where_it_is_told_to(name, monkeypatch):
    one, asked = engine_of(name), []
    monkeypatch.setattr(one, "rewind_step", 20)

    def stop(state):
        asked.append(state)
        return len(asked) == 2

    long, short = ticket(untouched(), 60), ticket(untouched(), 40)
    tasks = [Task(long, 1, stop), Task(long, 1)]
    found = {done.task: done.result for done in one.train_all(tasks[:])}
    stopped, whole = (found[task] for task in tasks)
    # Not before the rewind point, whose state a search needs.
    assert stopped.curve["step"] == [10, 20, 30, 40]
    assert whole.curve["step"] == [10, 20, 30, 40, 50, 60]
    assert stopped.curve["val_loss"] == pytest.approx(whole.curve["val_loss"][:4])
    for key, value in asked[1].items():
        np.testing.assert_array_equal(value, stopped.final[key])
    assert any((stopped.final[k] != whole.final[k]).any() for k in whole.final)
    for key, value in whole.rewind_point.items():
        np.testing.assert_allclose(value, stopped.rewind_point[key], atol=1e-6)
    assert stopped.metrics["final_val_loss"] == stopped.curve["val_loss"][-1]
    assert_alike(one.train(short, 1), stopped)


@pytest.mark.parametrize("name", NAMES)
def test_a_rewind_point_within_an_epoch_does_not_change_the_training(name, monkeypatch):
    # One engine: with moving averages, a second training had failed on JAX.
    one, work = engine_of(name, "ema"), ticket(untouched("ema"), 30)
    trainings = []
    for step in (0, 13):
        monkeypatch.setattr(one, "rewind_step", step)
        trainings.append(one.train(work, 1))
    plain, cut = trainings
    for key, value in plain.final.items():
        np.testing.assert_array_equal(value, cut.final[key])


def test_the_metric_that_counts():
    def build(metrics):
        x = keras.Input((4, 4, 2))
        flat = keras.layers.Flatten()(x)
        outputs = [keras.layers.Dense(3, name=name)(flat) for name in "ab"]
        built = mask_model(keras.Model(x, outputs))
        built.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
        return built

    of = data()
    parts = {
        name: (x, (y, 0 * y))
        for name in ("train", "validation", "test")
        for x, y in [getattr(of, name)]
    }
    parts = data(**parts)
    several = build(["accuracy", "accuracy"])
    with pytest.raises(ValueError, match=r"a_accuracy.*objective='val_a_acc"):
        make("fit", several, parts, 10)
    with pytest.raises(ValueError, match=r"'val_accuracy'.*'val_nope'"):
        make("fit", model(), of, 10, objective="val_nope")
    for name in ("a_accuracy", "b_accuracy"):
        one = make("fit", several, parts, 10, objective=f"val_{name}")
        logs = one._evaluate("validation")
        assert one._score("validation")[1] == logs[name]
    one = make("fit", build([None, "accuracy"]), parts, 10)
    assert one.objective == Objective("val_b_accuracy", "max")
    with pytest.raises(ValueError, match=r"metrics=\['accuracy'\]"):
        make("fit", model(metrics=["sparse_categorical_crossentropy"]), of, 10)


def test_unknown_engines():
    with pytest.raises(ValueError, match=r"'vectorized'\].*engine='fast'"):
        make("fast", model(), data(), 10)


@pytest.mark.tensorflow
def test_tensorflow_stacks_no_tickets():
    with pytest.warns(
        UserWarning, match=r"'vectorized' falls back to 'fused'.*tensorflow"
    ):
        assert make("vectorized", model(), data(), 10).name == "fused"


@pytest.mark.fused
def test_convolutions_are_not_stacked_on_processors(monkeypatch):
    monkeypatch.setattr(backends.current(), "on_accelerator", lambda: False)
    with pytest.warns(UserWarning, match=r"'vectorized' falls back to 'fused'"):
        assert make("vectorized", model("momentum"), data(), 10).name == "fused"


@pytest.mark.fused
def test_auto_counts_the_time_of_compiling(monkeypatch):
    monkeypatch.setattr(backends.current(), "on_accelerator", lambda: False)
    net, of = model(), data()
    assert make("auto", net, of, 100).name == "fit"
    assert make("auto", net, of, 100, trainings=100).name == "fused"
    monkeypatch.setattr(backends.current(), "on_accelerator", lambda: True)
    stacked = keras.backend.backend() == "jax"
    chosen = make("auto", net, of, 100).name
    assert chosen == ("vectorized" if stacked else "fused")
    assert make("auto", model("ema"), of, 100).name == "fused"
    # Trainings in one program do not store their states.
    assert make("auto", net, of, 100, checkpoint=5).name == "fused"
    if stacked:
        with pytest.raises(ValueError, match=r"None with engine='vectorized'.*=5"):
            make("vectorized", net, of, 100, checkpoint=5)


@pytest.mark.once
def test_callbacks_are_there_again_after_a_measurement(monkeypatch):
    callbacks = [keras.callbacks.EarlyStopping("loss")]
    one = made("fit", callbacks=callbacks)
    seen = []

    def fail(seed, record):
        seen.extend(one.callbacks)
        raise MemoryError

    monkeypatch.setattr(one, "_runner", fail)
    with pytest.raises(MemoryError):
        one.seconds_per_step(ticket(one.model))
    assert one.callbacks == callbacks and not seen


def test_a_model_comes_back_with_the_schedule_that_it_was_given():
    trained = made("fit", "momentum").model
    again = architecture.from_text(architecture.to_text(trained))
    schedule = again.optimizer._learning_rate
    assert isinstance(schedule, keras.optimizers.schedules.CosineDecay)
    assert schedule.decay_steps == 150
