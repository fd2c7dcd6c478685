"""What the experiment on the early phase trains on, and what it starts from."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from keras_lottery import data
from keras_lottery.masks import Masks
from keras_lottery.papers.experiments import EXPERIMENTS, early_phase
from keras_lottery.papers.experiments.early_phase import (
    CONTROLS,
    TASKS,
    blur,
    deviation,
    random_labels,
    rotation,
)
from keras_lottery.papers.experiments.measures import FINAL
from keras_lottery.tickets import Snapshot, Ticket

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_labels_of_rotations_say_how_far_images_are_turned(digits):
    turned = rotation(digits)
    assert (turned.classes, turned.input_shape) == (4, (8, 8, 1))
    for part in ("train", "validation", "test"):
        x, y = getattr(turned, f"x_{part}"), getattr(turned, f"y_{part}")
        straight = getattr(digits, f"x_{part}")
        assert set(np.unique(y)) == {0, 1, 2, 3} and y.dtype == np.int32
        for image, count, own in zip(x[:20], y, straight, strict=False):
            np.testing.assert_array_equal(np.rot90(image, -count), own)
    # The digits themselves are not turned.
    assert not np.array_equal(turned.x_train, digits.x_train)
    assert np.array_equal(digits.x_train, data.load("digits").x_train)


def test_only_training_images_are_blurred(digits):
    blurred = blur(digits)
    means = digits.averaged(2).x_train
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        np.testing.assert_array_equal(blurred.x_train[:, row::2, column::2], means)
    assert blurred.x_test is digits.x_test and blurred.y_train is digits.y_train


def test_random_labels_are_right_by_chance_alone(digits):
    drawn = random_labels(digits)
    assert 0.05 < (drawn.y_train == digits.y_train).mean() < 0.15
    assert drawn.y_test is digits.y_test and drawn.x_train is digits.x_train


@pytest.mark.parametrize("task", TASKS)
def test_tasks_are_the_same_every_time_and_have_names_of_their_own(digits, task):
    one, again = TASKS[task](digits), TASKS[task](digits)
    np.testing.assert_array_equal(one.y_train, again.y_train)
    assert one.name == f"digits_{task}"


def test_the_size_of_a_change_is_in_initial_deviations_of_what_is_left():
    rng = np.random.default_rng(0)
    shapes = {"small/kernel": (60, 50), "large/kernel": (50, 40)}
    initial = {
        name: rng.normal(scale=scale, size=shapes[name])
        for name, scale in zip(shapes, (0.01, 10.0), strict=True)
    }
    masks = Masks({name: rng.random(shape) < 0.5 for name, shape in shapes.items()})
    start = {name: 3 * array for name, array in initial.items()}
    snapshot = Snapshot(masks, start, initial, start, rng, None)
    ticket = Ticket(masks, start)
    noisy = CONTROLS["noise_2"](ticket, snapshot)
    assert deviation(ticket, noisy, snapshot) == pytest.approx(2, rel=0.05)
    elsewhere = {n: np.where(masks[n], start[n], 99.0) for n in shapes}
    assert deviation(ticket, Ticket(masks, elsewhere), snapshot) == 0


def test_tickets_are_compared_whatever_the_dense_networks_reach(digits, monkeypatch):
    accuracies = {
        "from_500": (0.9, 0.85),
        "from_0": (0.9, 0.8),
        "rotation": (0.95, 0.84),
    }

    def panels(name, searches, column):
        tables = {}
        for label in searches:
            reached = accuracies.get(label, (0.7, 0.8))
            rows = {"density": [1, 0.262], FINAL: reached}
            tables[label] = pd.DataFrame(rows).assign(variant="ticket", replicate=0)
        return tables

    monkeypatch.setattr(early_phase, "perturbed", lambda *arguments: {})
    for name in ("search", "pre_trained"):
        monkeypatch.setattr(early_phase, name, lambda *arguments, **how: None)
    scale = EXPERIMENTS["early_phase"].scales["cpu"]
    lab = SimpleNamespace(recipe=scale.recipe, splits=digits, panels=panels)
    measured = {name: value.item() for name, value in early_phase.run(lab).items()}
    assert measured == pytest.approx(
        {
            "late over early": 5,
            "rotation over early": 4,
            "blur over early": 0,
            "random_labels over early": 0,
            "rotation over random labels": 4,
        }
    )
