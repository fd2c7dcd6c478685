"""What the experiment on BERT trains, without training it."""

import numpy as np
import pytest

from keras_lottery import data, models
from keras_lottery.keras_bridge.layers import get_state
from keras_lottery.papers.experiments.bert_tickets import (
    ENCODER,
    EXPERIMENT,
    LEVELS,
    MLM,
    TASKS,
    pixels,
)
from keras_lottery.papers.experiments.networks import PreTrained
from keras_lottery.tickets import schedules
from keras_lottery.tickets.carry_over import matching

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def texts():
    return pixels(data.load("digits"))


def builder(model, splits):
    words = {"vocabulary": 22} if model is models.bert_small else {}
    return lambda shape, classes: model(shape, classes, **words, blocks=2, width=32)


def test_digits_run_through_all_tasks(texts):
    assert list(texts) == [MLM, *TASKS]
    for task, splits in texts.items():
        x, y = splits.train
        assert x.shape[1:] == splits.input_shape == (32,)
        assert len(x) == len(y) and y.shape[1:] == ((5,) if task == MLM else ())
        # In language, words are predicted; nothing else is larger than the vocabulary.
        assert y.max() < splits.classes and x.max() < texts[MLM].classes


def test_tasks_have_the_encoder_of_the_language_model_and_a_head_of_their_own(texts):
    language = models.bert_small_mlm((32,), 22, blocks=2, width=32)
    weights = get_state(language)
    build = PreTrained(builder(models.bert_small, texts["is_a"]), weights)
    one, two = (get_state(build((32,), 2)) for _ in range(2))
    model = build((32,), 2)
    shared = matching("pretrained", model, ENCODER)
    for name, array in one.items():
        if name.rpartition("/")[0] in shared:
            np.testing.assert_array_equal(array, weights[name])
        else:
            assert name.startswith("head/")
    assert not np.array_equal(one["head/kernel"], two["head/kernel"])
    again = get_state(
        PreTrained(builder(models.bert_small_mlm, None), weights)((32,), 22)
    )
    for name, array in again.items():
        np.testing.assert_array_equal(array, weights[name])


def test_claims_are_on_levels_that_every_scale_reports():
    for name in ("cpu", "paper"):
        scale = EXPERIMENT.scales[name]
        report = scale.report or range(1, scale.levels + 1)
        assert set(LEVELS) <= set(report)
        found = schedules.linear(0.1, scale.levels)
        assert [found[level - 1] for level in LEVELS] == [0.5, 0.7]
