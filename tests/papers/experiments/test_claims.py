"""Claims, and the numbers that they are held against."""

import math

import numpy as np
import pandas as pd
import pytest

from keras_lottery.papers.experiments import Claim, measures
from keras_lottery.papers.experiments.experiment import effect
from keras_lottery.papers.experiments.reproduce import _cell

pytestmark = pytest.mark.once

CLAIM = effect("It wins", "2 pp", "section 1", "gain", 2, "pp")


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ([2.9, 3.0, 3.1], "reproduced"),
        ([1.0, 1.1, 1.2], "reproduced"),
        ([0.8, 0.9, 1.0], "sign reproduced"),
        ([-0.6, 0.0, 4.0], "sign reproduced"),  # by chance alone, for all one knows
        ([3.0], "sign reproduced"),  # of one replicate, the noise is not known
        (3.0, "sign reproduced"),
        ([0.0, 0.0], "not reproduced"),
        ([-0.1, -0.2], "not reproduced"),
        (math.nan, "not run"),
        ([math.nan, math.nan], "not run"),
    ],
)
def test_an_effect_is_reproduced_above_half_of_its_size(value, verdict):
    assert CLAIM.verdict({"gain": value}) == verdict


def test_replicates_that_diverged_are_left_out_and_counted():
    values = {"gain": [2.9, 3.0, math.nan, 3.1]}
    assert CLAIM.verdict(values) == "reproduced"
    assert CLAIM.format(values) == "3.00 ± 0.10 pp (n = 3, 1 not a number)"
    assert CLAIM.format({"gain": [3.0, math.nan]}) == "3.00 pp (n = 1, 1 not a number)"


def test_what_was_not_measured_is_not_run():
    assert CLAIM.verdict({}) == "not run"
    assert CLAIM.format({}) == "not measured"


def test_a_claim_without_a_sign_is_reproduced_or_not():
    claim = Claim("As good", "as good", "section 1", "gain", (-0.2, 0.2), "pp")
    assert claim.verdict({"gain": 0.1}) == "reproduced"
    assert claim.verdict({"gain": 0.3}) == "not reproduced"
    assert claim.verdict({"gain": [-3.0, 3.0]}) == "reproduced"


# Student's t for 3 replicates is 4.3: the interval of the second is -2.5 to 4.5.
DIRECTIONS = ([1.0, 1.1, 1.2], [-0.5, 1.5, 2.0], [1.0], 1.0, [-1.0, -1.1], math.nan)


def test_a_direction_is_reproduced_by_more_than_noise():
    claim = effect("Better", "above", "figure 1", "gain", 0, "pp")
    assert [claim.verdict({"gain": values}) for values in DIRECTIONS] == [
        "reproduced",
        *["sign reproduced"] * 3,
        "not reproduced",
        "not run",
    ]
    worse = Claim("", "below", "", "gain", (-math.inf, 0), sign=(-math.inf, 0))
    assert worse.verdict({"gain": [-1.0, -1.1, -1.2]}) == "reproduced"
    assert worse.verdict({"gain": [0.5, -1.5, -2.0]}) == "sign reproduced"
    assert worse.verdict({"gain": [0.5, 1.0]}) == "not reproduced"


def test_an_open_question_holds_or_does_not():
    claim = effect("Better", "open", "nowhere", "gain", 0, "pp")
    assert [claim.verdict({"gain": values}) for values in DIRECTIONS] == [
        "holds",
        *["not certain"] * 3,
        "does not hold",
        "not run",
    ]


def test_values_show_their_spread():
    assert CLAIM.format({"gain": [1.0, 2.0]}) == "1.50 ± 0.71 pp (n = 2)"
    assert CLAIM.format({"gain": 1.23456}) == "1.235 pp"
    assert CLAIM.format({"gain": np.array([2.0])}) == "2 pp"


def test_ranges_are_said_in_words():
    def counts(*limits):
        return Claim("", "", "", "", limits, "%").counts

    assert counts(-math.inf, 2) == "up to 2 %"
    assert counts(1, math.inf) == "above 1 %"
    assert counts(1, 2) == "1 to 2 %"
    assert CLAIM.counts == "above 1 pp, 95 % interval above 0 pp"
    direction = Claim("", "", "", "", (1, math.inf), sign=(1, math.inf))
    assert direction.counts == "95 % interval above 1"


def table(**accuracies):
    """Results of two replicates, of accuracies at the densities 1, 0.5 and 0.2."""
    rows = []
    for variant, values in accuracies.items():
        for level, (density, accuracy) in enumerate(
            zip((1.0, 0.5, 0.2), values, strict=True)
        ):
            if variant == "reinit" and not level:
                continue
            for replicate in (0, 1):
                rows.append(
                    {
                        "level": level,
                        "density": density,
                        "variant": variant,
                        "replicate": replicate,
                        "trial": 0,
                        measures.ACCURACY: accuracy + 0.01 * replicate,
                        measures.STOP: 1000 * density + 10,
                    }
                )
    return pd.DataFrame(rows)


RESULTS = table(ticket=(0.90, 0.95, 0.80), reinit=(0.0, 0.85, 0.70))


def test_numbers_are_those_of_the_nearest_level():
    assert measures.at(RESULTS, 0.52).tolist() == pytest.approx([0.95, 0.96])
    assert measures.at(RESULTS, 0.5, variant="reinit").tolist() == [0.85, 0.86]
    assert np.isnan(measures.at(RESULTS, 0.4)).all()
    assert np.isnan(measures.at(RESULTS, 0.5, variant="shuffle")).all()


def test_gains_are_percentage_points_by_replicate():
    assert measures.gain(RESULTS, 0.5).tolist() == pytest.approx([5, 5])
    over = measures.gain(RESULTS, 0.2, over="reinit")
    assert over.tolist() == pytest.approx([10, 10])


def test_trials_of_a_replicate_are_averaged():
    more = RESULTS.assign(trial=1, **{measures.ACCURACY: 1.0})
    both = pd.concat([RESULTS, more])
    assert measures.at(both, 0.5).tolist() == pytest.approx([0.975, 0.98])


def test_sooner_is_a_share_of_the_other_steps():
    assert measures.sooner(RESULTS, 0.5) == pytest.approx(100 * (1 - 510 / 1010))


def test_joined_tables_name_what_is_not_of_the_first():
    joined = measures.join({"first": RESULTS, "second": RESULTS})
    assert list(joined["variant"].unique()) == [
        "ticket",
        "reinit",
        "second",
        "second_reinit",
    ]
    assert len(joined) == 2 * len(RESULTS)


def test_summaries_have_means_and_deviations():
    summary = measures.summarise(RESULTS)
    row = summary.query("variant == 'ticket' and level == 1").iloc[0]
    assert row["accuracy"] == 95.5
    assert row["deviation"] == 0.71
    assert (row["density"], row["early_stop"], row["trainings"]) == (50, 510, 2)


def test_summaries_are_of_the_accuracy_that_is_asked_for():
    both = RESULTS.assign(**{measures.FINAL: 0.5})
    summary = measures.summarise(both, column=measures.FINAL)
    assert set(summary["final_accuracy"]) == {50.0}
    assert "accuracy" not in summary


def test_markdown_keeps_its_columns():
    assert [_cell("x|y"), _cell(0.123456), _cell(7)] == ["x\\|y", "0.1235", "7"]
