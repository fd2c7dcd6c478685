import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery import schedules

pytestmark = pytest.mark.once


@given(rate=st.floats(0.05, 0.5), levels=st.integers(1, 20))
def test_geometric_prunes_a_share_of_what_is_left(rate, levels):
    schedule = schedules.geometric(rate, levels)
    assert len(schedule) == levels
    assert schedule.by_rate
    densities = np.array([1, *(1 - np.array(list(schedule)))])
    np.testing.assert_allclose(densities[1:] / densities[:-1], 1 - rate)


@given(rate=st.floats(0.01, 0.9), levels=st.integers(1, 20))
def test_linear_prunes_a_share_of_all_weights(rate, levels):
    schedule = schedules.linear(rate, levels)
    assert len(schedule) == min(levels, len(schedule)) > 0
    assert len(schedule) == levels or (len(schedule) + 1) * rate > 1 - 1e-9
    assert not schedule.by_rate
    np.testing.assert_allclose(np.diff([0, *schedule]), rate, atol=1e-9)


def test_linear_by_default_is_that_of_bert_tickets():
    assert list(schedules.linear()) == [k / 10 for k in range(1, 10)]


def test_schedules_are_sequences():
    schedule = schedules.get([0.5, 0.75, 0.9])
    assert (schedule[0], schedule[-1], list(schedule[1:])) == (0.5, 0.9, [0.75, 0.9])
    assert not schedule.by_rate


@pytest.mark.parametrize(
    ("given", "sparsities"),
    [
        (schedules.one_shot(0.9), (0.9,)),
        (0.9, (0.9,)),
        ([0.5, 0.9], (0.5, 0.9)),
        (np.array([0.5, 0.9]), (0.5, 0.9)),
        (iter([0.25]), (0.25,)),
    ],
)
def test_get(given, sparsities):
    schedule = schedules.get(given)
    assert schedule.sparsities == sparsities
    assert schedules.get(schedule) is schedule


@pytest.mark.parametrize(
    "sparsities", [[], [0.0], [1.0], [0.5, 0.5], [0.9, 0.5], [-0.1], [float("nan")], 90]
)
def test_sparsities_increase_between_0_and_1(sparsities):
    with pytest.raises(ValueError, match="Expected"):
        schedules.get(sparsities)


@pytest.mark.parametrize(
    "sparsities",
    [
        {},
        [{"conv": 0.5}, 0.8],
        [0.5, {"conv": 0.8}],
        [{"conv": 0.5}, {"out": 0.8}],
        [{"conv": 0.5, "out": 0.5}, {"conv": 0.8, "out": 0.4}],
        [{"conv": 0.5}, {"conv": 0.5}],
        {"conv": 0.0},
        {"conv": 1.0},
        {"conv": float("nan")},
        {"": 0.5},
    ],
)
def test_sparsities_of_layers_increase(sparsities):
    with pytest.raises(ValueError, match="Expected"):
        schedules.get(sparsities)


def test_one_level_of_layers():
    schedule = schedules.get({"conv*": 0.8, "out": 0.5})
    assert schedule.sparsities == ({"conv*": 0.8, "out": 0.5},)
    assert schedule.by_layer and not schedule.by_rate
    assert not schedules.get([0.5]).by_layer


@pytest.mark.parametrize("given", [None, [None], object()])
def test_what_is_no_schedule_is_refused(given):
    with pytest.raises(ValueError, match="schedule="):
        schedules.get(given)


@pytest.mark.parametrize(
    ("arguments", "message"), [((0, 3), "rate=0"), ((1, 3), "rate=1"), ((0.2, 0), "=0")]
)
@pytest.mark.parametrize("make", [schedules.geometric, schedules.linear])
def test_rates_and_levels_are_checked(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(*arguments)
