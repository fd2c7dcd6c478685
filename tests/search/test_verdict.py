"""The verdict, and the ticket that it chooses."""

import numpy as np
import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery import results as tables
from keras_lottery.engines.objective import ACCURACY
from keras_lottery.search import Run
from keras_lottery.search.best import Best, best_of
from tests.search.small_search import FIT, make

pytestmark = pytest.mark.once


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


def test_verdict_counts_the_steps_that_a_ticket_trained_itself():
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100), (1, "ticket", 0, 0.92, 0.92, 190)
    )
    assert not tables.verdict(results)["winning"].item()
    results.loc[results["level"] == 1, "start_step"] = 120
    assert tables.verdict(results)["winning"].item()


def test_verdict_goes_by_validation_without_test_data():
    results = table((0, "ticket", 0, 0.9, 0.9, 100), (1, "ticket", 0, 0.95, 0.9, 90))
    results["early_stop_test_accuracy"] = np.nan
    assert tables.verdict(results)["winning"].item()


def test_verdict_pairs_replicates_and_keeps_to_the_definition():
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100),
        (0, "ticket", 1, 0.80, 0.80, 100),
        (1, "ticket", 0, 0.92, 0.92, 90),
        (1, "ticket", 1, 0.81, 0.81, 100),
        (1, "reinit", 0, 0.95, 0.95, 90),
        (1, "reinit", 1, 0.95, 0.95, 90),
        (2, "ticket", 0, 0.92, 0.92, 101),
        (2, "ticket", 1, 0.82, 0.82, 101),
        (3, "ticket", 0, 0.89, 0.89, 10),
        (3, "ticket", 1, 0.80, 0.80, 10),
    )
    verdict = tables.verdict(results).set_index("level")
    assert verdict["winning"].to_dict() == {1: True, 2: False, 3: False}
    assert verdict.loc[1, "difference"] == pytest.approx(0.015)
    # Two differences, 0.02 and 0.01: t(0.975, 1) = 12.706, standard error 0.005.
    assert verdict.loc[1, "low"] == pytest.approx(0.015 - 12.7062 * 0.005)
    assert not verdict.loc[1, "certain"]
    assert not verdict.loc[1, "beats_reinit"]
    assert verdict.loc[3, "difference"] == pytest.approx(-0.005)
    lenient = tables.verdict(results, tolerance=0.006).set_index("level")
    assert lenient.loc[3, "winning"]
    with pytest.raises(ValueError, match="on='train'"):
        tables.verdict(results, on="train")


def test_less_of_an_error_is_better():
    results = table(
        (0, "ticket", 0, 0.5, 0.5, 100),
        (0, "ticket", 1, 0.4, 0.4, 100),
        (1, "ticket", 0, 0.4, 0.4, 90),
        (1, "ticket", 1, 0.3, 0.3, 90),
        (1, "reinit", 0, 0.6, 0.6, 90),
        (1, "reinit", 1, 0.6, 0.6, 90),
        (2, "ticket", 0, 0.6, 0.6, 90),
        (2, "ticket", 1, 0.5, 0.5, 90),
    ).rename(columns=lambda name: name.replace("accuracy", "mae"))
    with pytest.raises(ValueError, match=r"direction of 'val_mae'"):
        tables.verdict(results)
    least = kl.Objective("val_mae", "min")
    verdict = tables.verdict(results, objective=least).set_index("level")
    assert verdict["difference"].to_list() == pytest.approx([-0.1, 0.1])
    assert verdict["winning"].to_list() == [True, False]
    assert verdict["certain"].to_list() == [True, False]
    assert verdict.loc[1, "beats_reinit"]
    assert tables.verdict(results, tolerance=0.11, objective=least)["winning"].all()
    most = kl.Objective("val_mae", "max")
    assert tables.verdict(results, objective=most)["winning"].to_list() == [False, True]
    best = best_of(results, objective=least)
    assert (best.level, best.replicate, best.wins) == (1, 1, True)
    lenient = best_of(results, 0.11, least)
    assert "within 0.11 of the dense network's mae" in str(lenient)
    assert best_of(results.query("level != 1"), 0.0, least).wins is False


SPARSER_ON_TEST_DATA = table(
    (0, "ticket", 0, 0.90, 0.90, 100),
    (0, "ticket", 1, 0.90, 0.90, 100),
    (1, "ticket", 0, 0.91, 0.10, 90),
    (1, "ticket", 1, 0.95, 0.10, 90),
    (2, "ticket", 0, 0.895, 0.99, 90),
    (2, "ticket", 1, 0.895, 0.99, 90),
    (3, "ticket", 0, 0.10, 0.99, 90),
    (3, "ticket", 1, 0.10, 0.99, 90),
)


def test_the_best_ticket_is_the_sparsest_that_wins_on_validation_data():
    best = best_of(SPARSER_ON_TEST_DATA)
    assert best == Best(
        level=1, replicate=1, density=0.5, wins=True, tolerance=0.0, objective=ACCURACY
    )
    assert "level 1 (50.00%" in str(best) and "sparsest that wins" in str(best)
    within = best_of(SPARSER_ON_TEST_DATA, tolerance=0.006)
    assert (within.level, within.wins) == (2, True)
    assert "within 0.6 pp" in str(within)


def test_where_no_level_wins_the_best_ticket_is_the_most_accurate():
    results = SPARSER_ON_TEST_DATA.query("level != 1")
    best = best_of(results)
    assert (best.level, best.wins) == (2, False)
    assert "none wins" in str(best)


@pytest.mark.parametrize("levels", [[], [0], [1, 2]])
def test_without_a_dense_network_and_a_ticket_there_is_no_best(levels):
    results = SPARSER_ON_TEST_DATA[SPARSER_ON_TEST_DATA["level"].isin(levels)]
    with pytest.raises(ValueError, match="call `search` first"):
        best_of(results)


def test_a_search_and_its_reader_choose_the_same(monkeypatch, finished):
    monkeypatch.setattr(Run, "results", lambda self: SPARSER_ON_TEST_DATA)
    card = finished.best_ticket().card
    assert (card["level"], card["replicate"]) == (1, 1)
    assert Run.load(finished.directory).best_ticket().card == card
    assert finished.best_ticket(tolerance=0.006).card["level"] == 2


def test_the_tolerance_is_that_of_the_search(tmp_path):
    for tolerance in (0.0, 0.25):  # Another one trains nothing again.
        search = make(tmp_path, schedule=[0.5], controls={})
        search.search(**FIT, tolerance=tolerance)
        assert search.best().tolerance == Run.load(tmp_path).tolerance == tolerance


def test_the_best_ticket_says_when_none_wins(monkeypatch, finished):
    results = table(
        (0, "ticket", 0, 0.90, 0.90, 100),
        (1, "ticket", 0, 0.80, 0.95, 90),
        (2, "ticket", 0, 0.85, 0.80, 90),
    )
    monkeypatch.setattr(finished, "results", lambda: results)
    with pytest.warns(UserWarning, match="No level wins"):
        assert finished.best_ticket().card["level"] == 2
