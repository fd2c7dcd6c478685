"""The verdict, and the ticket that it chooses."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import keras_lottery as kl
from keras_lottery import results as tables
from keras_lottery.engines.objective import ACCURACY
from keras_lottery.search import Run
from keras_lottery.search.best import best_of, median_replicate
from tests.search.small_search import FIT, make

pytestmark = pytest.mark.once

LEAST = kl.Objective("val_mae", "min")


def table(*rows):
    columns = ["level", "variant", "replicate", "val", "test", "step"]
    frame = pd.DataFrame(rows, columns=columns)
    return pd.DataFrame(
        {
            "level": frame["level"],
            "sparsity": 1 - 0.5 ** frame["level"],
            "variant": frame["variant"],
            "replicate": frame["replicate"],
            "early_stop_val_accuracy": frame["val"],
            "early_stop_test_accuracy": frame["test"],
            "start_step": 0,
            "early_stop_step": frame["step"],
        }
    )


def searches(most=5):
    """Values of the dense network and of three levels, over 2 or more replicates."""
    value = st.floats(0.5, 1.0, width=32)
    rows = st.lists(value, min_size=4, max_size=4)
    return st.lists(rows, min_size=2, max_size=most).map(np.array)


def tabled(values, metric="accuracy"):
    """A table of one row a ticket, of values by replicate and level."""
    rows = [
        (level, "ticket", replicate, value, value, 100)
        for replicate, levels in enumerate(values)
        for level, value in enumerate(levels)
    ]
    return table(*rows).rename(columns=lambda name: name.replace("accuracy", metric))


@given(searches())
def test_the_interval_is_students_and_paired(values):
    verdict = tables.verdict(tabled(values), margin=0.01)
    step = [gap for gap in np.diff(np.unique(values)) if gap > 1e-6 * values.max()]
    for row in verdict.to_dict("records"):
        gains = values[:, row["level"]] - values[:, 0]
        assert row["difference"] == pytest.approx(gains.mean())
        # No less than the noise of rounding to the least difference of two values.
        error = max(gains.std(ddof=1), min(step, default=0) / 6**0.5)
        error /= len(gains) ** 0.5
        half = error * stats.t.ppf(0.975, len(gains) - 1)
        assert row["low"] == pytest.approx(gains.mean() - half)
        assert row["high"] == pytest.approx(gains.mean() + half)


def test_equal_accuracies_of_two_replicates_show_little():
    same = tabled(np.full((2, 2), 0.98))
    row = tables.verdict(same, examples=50).iloc[0]
    assert row["verdict"] == "undecided"
    assert not row["confirmed"]


def test_small_losses_are_compared_by_their_own_spread():
    values = np.array([[3e-6, 1e-6], [3.1e-6, 1.1e-6], [2.9e-6, 1e-6]])
    row = tables.verdict(
        tabled(values, "mse"), objective=kl.Objective("val_mse", "min")
    ).iloc[0]
    assert row["verdict"] == "better"


def test_without_tickets_there_is_no_verdict():
    with pytest.raises(ValueError, match="call `search` first"):
        tables.verdict(tabled(np.full((2, 2), 0.98)).iloc[:0])


def test_the_interval_is_that_of_scipy():
    values = np.array([[0.9, 0.91], [0.92, 0.97], [0.95, 0.93]])
    row = tables.verdict(tabled(values)).iloc[0]
    gains = values[:, 1] - values[:, 0]
    expected = stats.ttest_rel(values[:, 1], values[:, 0]).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected))
    p = stats.ttest_1samp(gains, -row["margin"], alternative="greater").pvalue
    assert row["p"] == pytest.approx(p)


@given(searches(), st.floats(0, 0.3))
def test_the_words_are_those_of_the_interval(values, margin):
    verdict = tables.verdict(tabled(values), margin=margin)
    for row in verdict.to_dict("records"):
        low, high = row["low"], row["high"]
        expected = {
            "better": low > 0,
            "matching": -margin < low <= 0,
            "worse": high < 0 and low <= -margin,
            "undecided": low <= -margin and high >= 0,
        }
        assert [word for word, holds in expected.items() if holds] == [row["verdict"]]
        if row["confirmed"]:
            assert row["verdict"] in ("better", "matching")


@given(searches(), st.floats(0, 0.3))
def test_less_of_an_error_is_more_of_an_accuracy(values, margin):
    accuracy = tables.verdict(tabled(values), margin=margin)
    error = tables.verdict(tabled(-values, "mae"), margin=margin, objective=LEAST)
    for column in ("verdict", "confirmed", "winning"):
        assert error[column].to_list() == accuracy[column].to_list()
    np.testing.assert_array_equal(error["p"], accuracy["p"])
    np.testing.assert_array_equal(error["low"], -accuracy["high"])
    np.testing.assert_array_equal(error["difference"], -accuracy["difference"])
    one, other = (
        best_of(tabled(values), margin),
        best_of(tabled(-values, "mae"), margin, LEAST),
    )
    chosen = ("level", "matches", "replicate")
    assert [getattr(one, k) for k in chosen] == [getattr(other, k) for k in chosen]


@given(searches(), st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(values, seed):
    results = tabled(values)
    shuffled = results.sample(frac=1, random_state=seed)
    one, other = tables.verdict(results), tables.verdict(shuffled)
    pd.testing.assert_frame_equal(one, other)
    assert best_of(results, 0.01) == best_of(shuffled, 0.01)


@given(searches(), st.floats(0, 0.2), st.floats(0, 0.2))
def test_a_wider_margin_finds_no_denser_ticket(values, margin, more):
    narrow, wide = (best_of(tabled(values), m) for m in (margin, margin + more))
    if narrow.matches:
        assert wide.matches and wide.level >= narrow.level


def test_one_replicate_decides_nothing():
    results = table((0, "ticket", 0, 0.9, 0.9, 100), (1, "ticket", 0, 0.99, 0.9, 90))
    row = tables.verdict(results).iloc[0]
    assert (row["verdict"], bool(row["confirmed"])) == ("undecided", False)
    assert row["winning"]
    assert "(one replicate can hardly show it: ask for 3" in str(best_of(results))


def test_two_replicates_that_are_equal_by_chance_show_little():
    """Of 100 examples, one is 0.01: two equal differences are no certainty."""
    values = np.array([[0.95, 0.94, 0.96], [0.96, 0.95, 0.96]])
    verdict = tables.verdict(tabled(values), margin=0.02).set_index("level")
    half = 12.7062 * (0.01 / 6**0.5) / 2**0.5
    assert verdict.loc[1, "low"] == pytest.approx(-0.01 - half, rel=1e-4)
    assert verdict.loc[1, "verdict"] == "undecided"


def test_many_looks_are_corrected_for():
    """One level of three has p = 1 %: matching alone, not among three."""
    t = stats.t.isf(0.01, 4)
    noise = np.array([-1.0, -1.0, 0.0, 1.0, 1.0])
    noise /= noise.std(ddof=1) / 5**0.5
    values = np.full((5, 4), 0.5)
    values[:, 1] += t * 0.01 + 0.01 * noise - 0.01
    values[:, 2:] -= 0.2
    verdict = tables.verdict(tabled(values), margin=0.01).set_index("level")
    assert verdict["verdict"].to_list() == ["matching", "worse", "worse"]
    assert verdict.loc[1, "p"] == pytest.approx(0.03, rel=1e-3)
    assert not verdict["confirmed"].any()
    alone = tables.verdict(tabled(values[:, :2]), margin=0.01)
    assert alone["confirmed"].all()


def test_the_margin_is_what_the_examples_support():
    values = np.array([[0.9, 0.91], [0.92, 0.97], [0.94, 0.93]])

    def margin(results, **how):
        return tables.verdict(results, **how)["margin"].item()

    assert margin(tabled(values)) == 0.002
    assert margin(tabled(values), examples=100) == pytest.approx(
        (0.92 * 0.08) ** 0.5 / 10
    )
    assert margin(tabled(values), examples=10**6) == 0.002
    assert margin(tabled(values), margin=0, examples=100) == 0
    of_error = margin(tabled(values, "mae"), objective=LEAST)
    assert of_error == pytest.approx(values[:, 0].std(ddof=1))


@pytest.mark.parametrize("margin", [-0.1, np.nan, np.inf, "0.1", True])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(ValueError, match=r"`margin` to be .* from 0\. .*Or 'auto'"):
        tables.verdict(tabled(np.full((2, 2), 0.9)), margin=margin)
    with pytest.raises(ValueError, match=r"`margin` to be .* from 0\. .*Or 'auto'"):
        make().search(**FIT, margin=margin)


def test_verdict_counts_the_steps_that_a_ticket_trained_itself():
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100), (1, "ticket", 0, 0.92, 0.92, 190)
    )
    assert not tables.verdict(results)["winning"].item()
    results.loc[results["level"] == 1, "start_step"] = 120
    assert tables.verdict(results)["winning"].item()


def test_the_definition_and_the_controls_stay_as_columns():
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100),
        (0, "ticket", 1, 0.80, 0.80, 100),
        (1, "ticket", 0, 0.92, 0.92, 90),
        (1, "ticket", 1, 0.81, 0.81, 100),
        (1, "reinit", 0, 0.91, 0.91, 90),
        (1, "reinit", 1, 0.76, 0.76, 90),
        (2, "ticket", 0, 0.92, 0.92, 101),
        (2, "ticket", 1, 0.82, 0.82, 101),
        (2, "reinit", 0, 0.82, 0.82, 101),
        (2, "reinit", 1, 0.72, 0.72, 101),
        (3, "ticket", 0, 0.89, 0.89, 10),
        (3, "ticket", 1, 0.80, 0.80, 10),
    )
    verdict = tables.verdict(results).set_index("level")
    assert verdict["winning"].to_dict() == {1: True, 2: False, 3: False}
    assert verdict["early_stop_difference"].to_dict() == {1: -5, 2: 1, 3: -90}
    assert verdict.loc[1, "reinit_difference"] == pytest.approx(0.03)
    # A better mean is not enough.
    assert verdict["beats_reinit"].to_list()[:2] == [False, True]
    words = tables.in_words(verdict.reset_index())
    assert words[2].endswith(", beats reinit") and "beats" not in words[1] + words[3]
    with pytest.raises(ValueError, match="on='train'"):
        tables.verdict(results, on="train")


def test_a_direction_that_no_name_tells_is_asked_for():
    results = tabled(np.full((2, 2), 0.9), "mae")
    with pytest.raises(ValueError, match=r"direction of 'val_mae'"):
        tables.verdict(results)


SPARSER_ON_TEST_DATA = table(
    *((0, "ticket", replicate, 0.90, 0.90, 100) for replicate in range(3)),
    (1, "ticket", 0, 0.91, 0.10, 90),
    (1, "ticket", 1, 0.93, 0.10, 90),
    (1, "ticket", 2, 0.92, 0.10, 90),
    *((2, "ticket", replicate, 0.87, 0.99, 90) for replicate in range(3)),
    *((3, "ticket", replicate, 0.10, 0.99, 90) for replicate in range(3)),
)


def test_the_best_ticket_is_the_sparsest_shown_to_match_on_validation_data():
    best = best_of(SPARSER_ON_TEST_DATA, 0.03)
    assert (best.level, best.replicate, best.matches) == (1, 2, True)
    assert (best.levels, best.replicates, best.density) == (3, 3, 0.5)
    assert (best.test, best.dense_test) == pytest.approx((0.1, 0.9))
    row = tables.verdict(SPARSER_ON_TEST_DATA, margin=0.03).iloc[0]
    for name in ("difference", "low", "high", "margin"):
        assert getattr(best, name) == row[name]
    minus = "\N{MINUS SIGN}"
    assert str(best) == (
        "The ticket of level 1 (50.00 % of the weights) matches the dense network; of "
        "3 levels it is the sparsest that is shown to do so. Its validation accuracy "
        f"differs by +2.00 pp (95 % interval {minus}0.48 to +4.48 pp over 3 "
        "replicates), with a margin of 3 pp. On the test data, which chose nothing, it "
        "has 10.00 %, and the dense network 90.00 %."
    )
    wide = best_of(SPARSER_ON_TEST_DATA, margin=0.1)
    assert (wide.level, wide.matches) == (2, True)


def test_where_none_is_shown_to_match_the_best_is_a_guess():
    results = SPARSER_ON_TEST_DATA.query("level != 1")
    inside = best_of(results, 0.035)
    assert (inside.level, inside.matches) == (2, False)
    assert str(inside).startswith("No ticket of 2 levels is shown to match")
    assert "best guess is level 2" in str(inside)
    outside = best_of(results, 0.001)
    assert (outside.level, outside.matches) == (2, False)
    results = results.assign(early_stop_test_accuracy=np.nan)
    assert "test" not in str(best_of(results, 0.001))


@pytest.mark.parametrize(
    ("values", "replicate"),
    [([0.9, 0.7, 0.8], 2), ([0.9, 0.7], 1), ([0.7], 0), ([0.8, 0.8, 0.9, 0.7], 0)],
)
def test_the_ticket_is_the_median_of_its_level(values, replicate):
    rows = [(1, "ticket", i, value, 0, 9) for i, value in enumerate(values)]
    assert median_replicate(table(*rows), 1, ACCURACY) == replicate


@pytest.mark.parametrize("levels", [[], [0], [1, 2]])
def test_without_a_dense_network_and_a_ticket_there_is_no_best(levels):
    results = SPARSER_ON_TEST_DATA[SPARSER_ON_TEST_DATA["level"].isin(levels)]
    with pytest.raises(ValueError, match="call `search` first"):
        best_of(results)


def test_a_search_and_its_reader_choose_the_same(monkeypatch, finished):
    results = SPARSER_ON_TEST_DATA.query("replicate < 2")
    monkeypatch.setattr(Run, "results", lambda self: results)
    best = finished.best(margin=0.02)
    assert (best.level, best.replicate, best.matches) == (1, 0, False)
    with pytest.warns(UserWarning, match="No ticket of 3 levels is shown to match"):
        card = finished.best_ticket(margin=0.02).card
    assert (card["level"], card["replicate"]) == (1, 0)
    run = Run.load(finished.directory)
    assert run.best(margin=0.02) == best
    # 50 validation examples; on test data the margin is the same.
    assert run.best().margin == pytest.approx((0.9 * 0.1 / 50) ** 0.5)
    assert set(run.verdict("test")["margin"]) == {run.best().margin}


def test_the_margin_is_that_of_the_search(tmp_path):
    for margin in (0.0, 0.25):  # Another one trains nothing again.
        search = make(tmp_path, schedule=[0.5], controls={})
        search.search(**FIT, margin=margin)
        assert search.best().margin == Run.load(tmp_path).margin == margin
    make(tmp_path, schedule=[0.5], controls={}).search(**FIT)
    assert Run.load(tmp_path).margin == 0.25  # what was declared stays
