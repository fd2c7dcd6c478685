"""Where tickets go back to, and one training cut in two there."""

import functools

import keras
import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.files import read_record
from keras_lottery.search.store import TrainingId
from keras_lottery.tickets.rewind import FineTune, Rewind
from tests.search.small_search import FIT, build, fit_engine, make, stored

once = pytest.mark.once


@functools.cache
def rewound(rewind, rewind_to):
    search = make(rewind=rewind, rewind_to=rewind_to, controls={})
    search.search(**FIT)
    return search


@pytest.mark.parametrize(
    ("rewind", "rewind_to"),
    [
        ("weights", 5),
        pytest.param("weights", "1ep", marks=once),
        pytest.param("learning_rate", 5, marks=once),
        pytest.param("fine_tune", 5, marks=once),
        pytest.param("continue", 5, marks=once),
    ],
)
def test_rewinding_goes_to_the_right_weights_and_step(rewind, rewind_to):
    search = rewound(rewind, rewind_to)
    k = {5: 5, "1ep": 6}[rewind_to]
    point = stored(search, TrainingId(0, 0, "ticket"))[1]["rewind_point"]
    for level in (1, 2):
        ticket = search.ticket(level)
        ends = search.ticket(level - 1).trained
        expected = ends if rewind in ("learning_rate", "fine_tune") else point
        for name, value in expected.items():
            np.testing.assert_array_equal(ticket.weights[name], value)
        assert (ticket.step, ticket.steps) == (
            (12, 12) if rewind == "fine_tune" else (k, 12 - k)
        )
        # Its start is stored already, and not again.
        path = search.store.training(TrainingId(0, level, "ticket"))
        assert list(read_record(path, "training")[1]) == ["final"]


def test_the_rewind_point_holds_statistics_and_random_state():
    search = rewound("weights", 5)
    point = stored(search, TrainingId(0, 0, "ticket"))[1]["rewind_point"]
    initial = search.ticket(0).weights
    # On torch, a step's seed is made of its number.
    drawn = (
        [] if keras.backend.backend() == "torch" else ["dropout/seed_generator_state"]
    )
    for name in ("batch_normalization/moving_mean", *drawn):
        assert not np.array_equal(point[name], initial[name])


class Rates(keras.callbacks.Callback):
    """Writes down the learning rate of each step."""

    seen: list

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        Rates.seen.append((int(optimizer.iterations), float(optimizer.learning_rate)))

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.on_train_begin()


@pytest.mark.parametrize(
    ("rewind", "first", "last"),
    [
        ("weights", (0, 0.05), (7, 0.12)),
        pytest.param("learning_rate", (0, 0.05), (7, 0.12), marks=once),
        pytest.param("fine_tune", (0, 0.11), (12, 0.11), marks=once),
        (Rewind(FineTune(steps=3, learning_rate=0.5)), (0, 0.5), (3, 0.5)),
    ],
)
def test_the_schedule_is_offset_and_the_optimizer_is_not(rewind, first, last):
    class Line(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.01 * keras.ops.cast(step, "float32")

        def get_config(self):
            return {}

    Rates.seen = []
    search = make(
        model=lambda: build(Line()),
        rewind=rewind,
        rewind_to=5,
        controls={},
        schedule=[0.5],
    )
    search.search(**FIT, callbacks=[Rates()])
    dense = [step for step, _ in Rates.seen].index(12)
    ticket = Rates.seen[dense + 1 :]
    assert ticket[0] == pytest.approx(first)
    # After its last step an optimizer shows the rate of the next one.
    if not isinstance(rewind, str) or rewind == "fine_tune":
        assert ticket[-1] == pytest.approx(last)
    else:
        assert ticket[-1][0] == last[0]
        assert ticket[-2][1] == pytest.approx(last[1] - 0.01)


@pytest.mark.once
def test_a_fixed_rate_of_fine_tuning_replaces_a_plain_learning_rate():
    Rates.seen = []
    fine_tune = Rewind(FineTune(steps=4, learning_rate=0.25))
    make(rewind=fine_tune, controls={}, schedule=[0.5]).search(
        **FIT, callbacks=[Rates()]
    )
    assert {round(rate, 6) for _, rate in Rates.seen} == {0.01, 0.25}


@pytest.mark.once
def test_continue_finds_masks_by_one_run_that_goes_on():
    search = rewound("continue", 5)
    _, states, masks = stored(search, TrainingId(0, 1, "mask_finding"))
    second = search.ticket(2).masks
    scores = {name: np.abs(states["final"][name]) for name in second}
    expected = kl.allocation.Global()(scores, masks, 0.75)
    assert second == expected
    assert set(search.results()["variant"]) == {"ticket"}


def test_training_twice_in_one_engine_gives_the_same_to_the_bit(finished):
    engine = fit_engine()
    ticket = finished.ticket(1)
    first, second = (engine.train(ticket, seed=3) for _ in range(2))
    for name, value in first.final.items():
        np.testing.assert_array_equal(second.final[name], value)
    assert first.curve == second.curve
    other = engine.train(ticket, seed=4)
    assert other.curve != first.curve
    for name, mask in ticket.masks.items():
        assert (first.final[name][~mask] == 0).all()
        assert (first.final[name][mask] != 0).all()


def test_a_rewind_point_in_the_middle_of_an_epoch_does_not_change_the_training(
    finished, monkeypatch
):
    engine, ticket = fit_engine(), finished.ticket(0)
    plain = engine.train(ticket, 3)
    monkeypatch.setattr(engine, "rewind_step", 5)
    cut = engine.train(ticket, 3)
    assert any((cut.rewind_point[k] != cut.final[k]).any() for k in cut.final)
    for name, value in plain.final.items():
        np.testing.assert_array_equal(cut.final[name], value)
    assert plain.curve == cut.curve
