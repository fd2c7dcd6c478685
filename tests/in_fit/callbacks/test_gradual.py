"""Gradual pruning inside one `fit`."""

import functools
import warnings

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery.in_fit.callbacks import GradualPruning
from keras_lottery.keras_bridge.internals.optimizers import steps_done
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_sparsity,
    get_state,
    mask_model,
    set_masks,
    set_state,
)
from tests.models_zoo import (
    arrays,
    assert_equal,
    compiled,
    fit,
    mlp,
    pruned_weights,
    scramble,
)

SIZE = 36  # prunable weights of the MLP


class Watch(keras.callbacks.Callback):
    """Notes how many weights each batch is trained with, and after the last one."""

    def __init__(self):
        super().__init__()
        self.kept = []
        self.on_train_batch_begin = self.on_train_end = self.note

    def note(self, *args, **kwargs):
        self.kept.append(get_masks(self.model).kept)


def train(model, *arguments, epochs=1, batches=4, **kwargs):
    watch = Watch()
    callback = GradualPruning(*arguments, **kwargs)
    fit(model, batches, epochs=epochs, callbacks=[callback, watch])
    return watch.kept


def masked(**kwargs):
    return mask_model(compiled(scramble(mlp()), **kwargs))


@functools.cache
def only():
    model = masked()
    return model, get_masks(model), get_state(model)


def fresh():
    """A dense model and its optimizer at step 0; always the same, compiled once."""
    model, masks, state = only()
    set_masks(model, masks)
    set_state(model, state)
    model.optimizer.iterations.assign(0)
    return model


def zhu_gupta(step, s_f, t_0, t_n, s_i=0.0, power=3.0):
    """Equation 1 of the paper, held at its ends."""
    if step < t_0:
        return 0.0
    if step >= t_n:
        return s_f
    return s_f + (s_i - s_f) * (1 - (step - t_0) / (t_n - t_0)) ** power


def left(*sparsities):
    return [round(SIZE * (1 - sparsity)) for sparsity in sparsities]


@st.composite
def schedules(draw):
    s_i, s_f = sorted(draw(st.tuples(st.floats(0, 0.99), st.floats(0, 0.99))))
    begin, end = sorted(draw(st.tuples(st.integers(0, 500), st.integers(0, 500))))
    return s_f, begin, end, s_i, draw(st.sampled_from([0.5, 1, 2, 3, 7.5]))


@pytest.mark.once
@given(schedules(), st.integers(0, 600))
def test_sparsity_is_that_of_zhu_and_gupta(schedule, step):
    s_f, begin, end, s_i, power = schedule
    callback = GradualPruning(s_f, begin, end, initial_sparsity=s_i, power=power)
    expected = zhu_gupta(step, s_f, begin, end, s_i, power)
    assert callback.sparsity_at(step) == pytest.approx(expected)
    assert callback.sparsity_at(step) <= callback.sparsity_at(step + 1)
    assert callback.sparsity_at(end) == s_f


@pytest.mark.once
def test_steps_may_be_numbers_of_numpy():
    first, last = np.arange(2, 4)
    callback = GradualPruning(0.5, first, last, frequency=np.int32(1))
    assert [callback.is_update_step(step) for step in (1, 2, 3, 4)] == [0, 1, 1, 0]


@pytest.mark.once
def test_power_0_prunes_at_once():
    callback = GradualPruning(0.8, begin_step=2, end_step=5, power=0)
    assert [callback.sparsity_at(step) for step in (1, 2, 5)] == [0, 0.8, 0.8]


@pytest.mark.once
@given(schedules(), st.integers(1, 200))
def test_pruning_steps(schedule, frequency):
    s_f, begin, end, *_ = schedule
    callback = GradualPruning(s_f, begin, end, frequency)
    steps = [step for step in range(600) if callback.is_update_step(step)]
    assert steps == sorted({*range(begin, end + 1, frequency), end})


@pytest.mark.representative
def test_the_model_has_the_asked_sparsity_at_every_step():
    model = fresh()
    kept = train(model, 0.8, 1, 9, frequency=1, initial_sparsity=0.2, epochs=3)
    asked = [zhu_gupta(step, 0.8, 1, 9, 0.2) for step in range(12)]
    assert kept == left(*asked, 0.8)
    assert not pruned_weights(model).any()
    assert get_sparsity(model) == pytest.approx(1 - round(SIZE * 0.2) / SIZE)


@pytest.mark.once
def test_frequency_and_the_last_step():
    """Pruned at 0, 3, 6 and, though it is not due, at the end step."""
    asked = [zhu_gupta(step, 0.75, 0, 7) for step in (0, 0, 0, 3, 3, 3, 6, 7)]
    kept = train(fresh(), 0.75, 0, 7, frequency=3, epochs=2)
    assert kept == left(*asked, 0.75)


@pytest.mark.once
@pytest.mark.parametrize(
    ("begin", "end", "asked"),
    [
        (0, 0, [0.5, 0.5, 0.5, 0.5, 0.5]),
        (2, 2, [0, 0, 0.5, 0.5, 0.5]),
        (4, 4, [0, 0, 0, 0, 0.5]),  # after the last step
        (0, 4, [0, 0, 0, 0, 0.5]),
    ],
)
def test_ends_of_the_schedule(begin, end, asked):
    assert train(fresh(), 0.5, begin, end) == left(*asked)


@pytest.mark.fused
@pytest.mark.parametrize("per_execution", [2, 5])
def test_several_steps_in_one_execution(per_execution):
    """Masks change between executions, and the end comes out exactly."""
    model = masked(steps_per_execution=per_execution)
    kept = train(model, 0.8, 0, 8, frequency=1, power=1, epochs=2, batches=5)
    starts = [
        step for epoch in (0, 5) for step in range(epoch, epoch + 5, per_execution)
    ]
    assert kept == left(*(zhu_gupta(step, 0.8, 0, 8, power=1) for step in starts), 0.8)


def test_a_second_fit_goes_on():
    model = fresh()
    with pytest.warns(UserWarning, match="after 4 steps, end_step=6"):
        first = train(model, 0.8, 0, 6, frequency=1)
    second = train(model, 0.8, 0, 6, frequency=1)
    asked = [zhu_gupta(step, 0.8, 0, 6) for step in range(8)]
    assert first[:-1] + second == left(*asked, 0.8)
    before = get_masks(model)
    fit(model, callbacks=[GradualPruning(0.8, 0, 6)])
    assert get_masks(model) == before


@pytest.mark.once
def test_a_schedule_that_has_passed_is_caught_up_with():
    model = fresh()
    fit(model)
    assert train(model, 0.5, 0, 3) == left(*[0.5] * 5)


@pytest.mark.once
def test_ending_before_the_end_step_warns():
    message = "after 4 steps, end_step=5.* 0.0000, not final_sparsity=0.5"
    with pytest.warns(UserWarning, match=message):
        train(fresh(), 0.5, 4, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        train(fresh(), 0.5, 0, 4)
        # What was to come would have changed nothing.
        train(fresh(), 0.8, 0, 9, power=0)


@pytest.mark.once
def test_a_model_that_is_sparser_already_stays_as_it_is():
    model = fresh()
    train(model, 0.75, 0, 1)
    before = get_masks(model)
    model.optimizer.iterations.assign(0)
    train(model, 0.5, 0, 2, frequency=1)
    assert get_masks(model) == before


def test_accumulated_gradients():
    """A step is a batch, whether its gradients are applied at once or not."""
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    kept = train(masked(optimizer=optimizer), 0.8, 0, 7, frequency=1, epochs=2)
    assert kept == left(*(zhu_gupta(step, 0.8, 0, 7) for step in range(8)), 0.8)


@pytest.mark.parametrize("scaled", [False, True])
def test_steps_are_those_of_learning_rate_schedules(scaled):
    schedule = keras.optimizers.schedules.PolynomialDecay(100.0, 100, 0.0)
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=3)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model = masked(optimizer=optimizer)
    fit(model, 4)
    assert steps_done(model.optimizer) == 4
    assert 100 - float(model.optimizer.learning_rate) == pytest.approx(4)


@pytest.mark.once
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("end", [6, 8])
def test_weights_put_back_with_their_masks(last, end):
    """They warn, unless the last step prunes what was put back."""
    model = fresh()
    stop = keras.callbacks.EarlyStopping("none", restore_best_weights=True)
    stop.on_epoch_end = lambda epoch, logs: (
        epoch or setattr(stop, "best_weights", model.get_weights())
    )
    callbacks = [GradualPruning(0.75, 6, end), stop]
    callbacks = callbacks if last else callbacks[::-1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, epochs=2, callbacks=callbacks)
    messages = [str(w.message) for w in caught if w.category is UserWarning]
    if end == 8 and not last:
        assert get_sparsity(model) == 0.75 and not messages
    else:
        assert get_sparsity(model) == 0
        (message,) = messages
        assert "the sparsity is 0.0000, not the 0.7500 that GradualPruning" in message
        assert f"end_step={end}" in message
    assert not pruned_weights(model).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(model, epochs=1)


@pytest.mark.once
def test_criterion_and_allocation():
    seen = []

    def last_first(snapshot):
        seen.append(snapshot.data)
        return {
            n: np.arange(m.size).reshape(m.shape) for n, m in snapshot.masks.items()
        }

    model = fresh()
    train(model, 0.5, 0, 1, criterion=last_first, allocation="uniform", data="data")
    for mask in get_masks(model).values():
        assert mask.ravel().tolist() == sorted(mask.ravel())
        assert mask.mean() == 0.5
    assert set(seen) == {"data"}


@pytest.mark.once
@pytest.mark.parametrize(("granularity", "pattern"), [((2, 1), {0, 2}), ("1:2", {1})])
def test_granularity(granularity, pattern):
    model = fresh()
    train(model, 0.5, 0, 3, frequency=1, granularity=granularity)
    for mask in get_masks(model).values():
        assert set(mask.reshape(-1, 2, mask.shape[1]).sum(axis=1).ravel()) == pattern
    assert get_sparsity(model) == 0.5


@pytest.mark.once
def test_sparsity_of_each_layer():
    model = fresh()
    sparsity = {"dense": 0.75, "dense_1": 0.5}
    first, second = (mask.size for mask in get_masks(model).values())
    final = (0.75 * first + 0.5 * second) / (first + second)
    kept = train(model, sparsity, 0, 3, frequency=1, granularity={"dense": (2, 1)})
    assert [mask.mean() for mask in get_masks(model).values()] == [0.25, 0.5]
    asked = GradualPruning(final, 0, 3, frequency=1)
    assert kept[:4] == pytest.approx(
        [SIZE * (1 - asked.sparsity_at(step)) for step in range(4)], abs=1.5
    )
    callback = GradualPruning(sparsity, 0, 3)
    assert callback.get_config()["final_sparsity"] == sparsity
    with pytest.raises(ValueError, match="known once training begins"):
        callback.sparsity_at(0)


@pytest.mark.once
def test_random_pruning_follows_the_seed():
    masks = []
    for seed in (1, 1, 2):
        model = fresh()
        train(model, 0.5, 0, 1, criterion="random", seed=seed)
        masks.append(get_masks(model))
    assert masks[0] == masks[1] != masks[2]


@pytest.mark.once
def test_an_unmasked_model_is_refused_before_it_trains():
    model = compiled(mlp())
    before = arrays(model)
    with pytest.raises(ValueError, match="Train what `mask_model"):
        train(model, 0.5, 0, 1)
    assert_equal(arrays(model), before)


@pytest.mark.parametrize(
    ("criterion", "data", "message"),
    [
        ("snip", None, r"criterion='snip' with `data` .*\[\]: .*needs training data"),
        (
            "snip",
            (np.ones((8, 5)), np.ones((8, 2))),
            r"shapes \[\(8, 5\), \(8",
        ),
        ("large_init", None, "criterion='large_init' .* before and after training"),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_it_trains(criterion, data, message):
    model = fresh()
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        train(model, 0.5, 3, 4, criterion=criterion, data=data)
    assert_equal(arrays(model), before)


@pytest.mark.once
def test_weights_that_are_zero_may_train_before_they_are_pruned():
    model = fresh()
    model.layers[-1].weight_variable("kernel").assign(np.zeros((6, 2)))
    data = np.ones((8, 4)), np.ones((8, 2))
    train(model, 0.5, 2, 3, criterion="snip", data=data)
    assert get_sparsity(model) == 0.5


@pytest.mark.once
def test_config_round_trip():
    arguments = {
        "final_sparsity": 0.9,
        "begin_step": 10,
        "end_step": 90,
        "frequency": 7,
        "initial_sparsity": 0.3,
        "power": 2,
        "criterion": "random",
        "allocation": "uniform",
        "granularity": "block_1x4",
        "seed": 5,
    }
    callback = GradualPruning(**arguments)
    assert callback.get_config() == arguments
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(callback)
    )
    assert isinstance(again, GradualPruning)
    assert again.get_config() == arguments


@pytest.mark.once
@pytest.mark.parametrize("argument", ["criterion", "allocation"])
def test_functions_have_no_config(argument):
    with pytest.raises(ValueError, match=f"{argument}=<function"):
        GradualPruning(0.5, 0, 1, **{argument: lambda *_: None}).get_config()


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final_sparsity": 1.0}, "final_sparsity=1.0"),
        ({"initial_sparsity": 0.6}, "initial_sparsity=0.6"),
        ({"initial_sparsity": -0.1}, "initial_sparsity=-0.1"),
        ({"begin_step": 11}, "begin_step=11"),
        ({"begin_step": -1}, "begin_step=-1"),
        ({"begin_step": 0.0}, "begin_step=0.0"),
        ({"end_step": 50.5}, "end_step=50.5"),
        ({"frequency": 0}, "frequency=0"),
        ({"frequency": 2.5}, "frequency=2.5"),
        ({"power": -1}, "power=-1"),
        ({"criterion": "typo"}, "criterion='typo'"),
        ({"allocation": "typo"}, "allocation='typo'"),
        ({"granularity": "typo"}, "granularity='typo'"),
        ({"final_sparsity": {"a": 2}}, r"final_sparsity\['a'\]=2"),
        ({"final_sparsity": {"a": 0.5}, "allocation": "erk"}, "allocation='erk'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    defaults = {"final_sparsity": 0.5, "begin_step": 0, "end_step": 10}
    with pytest.raises(ValueError, match=message):
        GradualPruning(**(defaults | arguments))
