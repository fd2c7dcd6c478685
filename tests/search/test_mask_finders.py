"""Masks found in trainings that are shorter than the tickets'."""

import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery import engines
from keras_lottery.engines import Done, Facts, Training
from keras_lottery.engines.objective import ACCURACY
from keras_lottery.search.converged import Converged
from keras_lottery.search.progress import Progress
from keras_lottery.search.store import MASK_FINDING, TrainingId
from tests.search.small_search import FIT, build, make, stored


def test_masks_come_from_short_trainings_and_tickets_train_in_full():
    search = make(rewind_to=2)
    table = search.search(**FIT, mask_epochs=1)
    assert set(table["variant"]) == {"ticket", "reinit"}
    assert search.curve(2)["step"][-1] == search.curve(0)["step"][-1] == 12
    masks = search.ticket(0).masks
    for level, steps in ((0, 8), (1, 6)):
        meta, states, held = stored(search, TrainingId(0, level, "mask_finding"))
        assert meta["steps"] == steps
        assert held == masks
        scores = {name: np.abs(states["final"][name]) for name in masks}
        masks = kl.allocation.Global()(scores, held, [0.5, 0.75][level])
        assert masks == search.ticket(level + 1).masks
    assert not search.store.training(TrainingId(0, 2, "mask_finding")).exists()


def test_a_short_training_passes_the_tickets_own_rewind_point():
    search = make(rewind_to=5, schedule=[0.5], controls={})
    search.search(**FIT, mask_steps=1)
    dense = stored(search, TrainingId(0, 0, "ticket"))[1]
    run = stored(search, TrainingId(0, 0, "mask_finding"))[1]
    for name, value in dense["rewind_point"].items():
        np.testing.assert_array_equal(run["rewind_point"][name], value)
        np.testing.assert_array_equal(search.ticket(1).weights[name], value)


class Instant:
    """An engine that trains nothing; every training moves the weights."""

    objective = ACCURACY
    name = "fit"
    most = 1
    compact = False

    def __init__(self, name, model, data, **options):
        self.model, self.data = model, data

    def train_all(self, waiting, progress):
        while waiting:
            task = waiting.pop(0)
            ticket = task.make(self.model, self.data.examples)
            final = {name: w + 1 for name, w in ticket.weights.items()}
            metrics = {"seconds": 0.0, "early_stop_val_accuracy": 0.5}
            training = Training(final, final, {}, metrics)
            yield Done(task, Facts.of(ticket), training)


@pytest.mark.once
@pytest.mark.parametrize(
    ("search", "fit", "found_in"),
    [
        ({}, {}, []),
        ({"rewind": "continue"}, {}, [1, 2]),
        ({}, {"mask_steps": 4}, [0, 1, 2]),
        ({"rewind": "continue"}, {"mask_epochs": "auto"}, [0, 1, 2]),
        ({"prune_at_init": True}, {}, []),
    ],
)
def test_trainings_are_counted_before(monkeypatch, search, fit, found_in):
    totals = []
    monkeypatch.setattr(engines, "make", Instant)
    monkeypatch.setattr(
        "keras_lottery.search.at_work.Progress",
        lambda total, verbose: totals.append(total) or Progress(total, verbose),
    )
    asked = {"schedule": [0.3, 0.5, 0.7], "report_levels": [2, 3], "replicates": 2}
    run = make(**asked, **search, workers=0)
    run.search(**FIT | fit)
    assert totals == [len(run.store.training_ids())]
    beside = [
        which.level
        for which in run.store.training_ids()
        if which.variant == MASK_FINDING
    ]
    assert sorted(beside) == sorted(2 * found_in)


@pytest.mark.once
def test_only_reported_levels_are_trained_in_full():
    search = make(schedule=[0.3, 0.5, 0.75], report_levels=[2, 3])
    table = search.search(**FIT, mask_steps=4)
    assert table.groupby("variant")["level"].apply(list).to_dict() == {
        "reinit": [2, 3],
        "ticket": [0, 2, 3],
    }
    plain = make(schedule=[0.3, 0.5], report_levels=[2]).search(**FIT)
    # These tickets find the masks; nothing is reported of the first beside itself.
    assert list(plain.query("variant == 'reinit'")["level"]) == [2]
    assert list(plain.query("variant == 'ticket'")["level"]) == [0, 1, 2]


def test_a_training_stops_where_its_masks_have_converged():
    still = make(model=lambda: build(1e-9), rewind_to=5, controls={}, schedule=[0.5])
    still.search(**FIT, mask_epochs="auto")
    meta = stored(still, TrainingId(0, 0, "mask_finding"))[0]
    # Validated every 4 steps, asked after the rewind point; an epoch has 6.
    assert meta["curve"]["step"] == [4, 8, 12]
    assert meta["steps"] == 12
    assert still.curve(1)["step"][-1] == 12
    early = make(model=lambda: build(1e-9), controls={}, schedule=[0.5])
    early.search(**FIT | {"epochs": 3}, mask_epochs="auto")
    assert stored(early, TrainingId(0, 0, "mask_finding"))[0]["curve"]["step"] == [4, 8]


@pytest.mark.once
@pytest.mark.parametrize("eval_freq", [1, 6])
def test_masks_converge_over_an_epoch_however_often_is_validated(eval_freq):
    search = make(model=lambda: build(1e-9), controls={}, schedule=[0.5])
    fit = FIT | {"epochs": 4, "eval_freq": eval_freq}
    search.search(**fit, mask_epochs="auto")
    meta = stored(search, TrainingId(0, 0, "mask_finding"))[0]
    assert meta["curve"]["step"][-1] == 6 + eval_freq


@pytest.mark.once
def test_converged_counts_what_left_the_masks():
    weights = np.arange(100, dtype="float32")
    masks = kl.Masks.dense({"w": (100,)})

    def ask(moves, tolerance=0.1):
        converged = Converged(
            masks=masks,
            initial={"w": weights},
            rewind_point={"w": weights},
            sparsity=0.5,
            criterion=kl.criteria.get("magnitude"),
            allocation=kl.allocation.get("global"),
            tolerance=tolerance,
        )
        moved = weights.copy()
        moved[:moves] += 1000
        assert not converged({"w": weights})
        return converged({"w": moved})

    # Of 50 pruned weights, 5 exchanged are 10 %.
    assert ask(0) and ask(5)
    assert not ask(6)


@pytest.mark.once
@pytest.mark.parametrize(
    ("search", "fit", "message"),
    [
        ({}, {"mask_epochs": 2}, "shorter than the tickets' 12 steps"),
        ({}, {"mask_epochs": 0.01}, "at least 1 step"),
        ({}, {"mask_epochs": 1, "mask_steps": 3}, "mask_epochs=1, mask_steps=3"),
        ({}, {"mask_epochs": "soon"}, "mask_epochs='soon'"),
        ({"rewind": "learning_rate"}, {"mask_epochs": 1}, "rewind='weights'"),
        ({"rewind": "fine_tune"}, {"mask_epochs": "auto"}, "rewind='weights'"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(tmp_path, search, fit, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **search).search(**FIT | fit)
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_levels_to_report_are_those_of_the_schedule():
    with pytest.raises(ValueError, match=r"report_levels=\[1\]"):
        make(report_levels=[1])
    with pytest.raises(ValueError, match=r"report_levels=\[2, 3\]"):
        make(report_levels=[2, 3])


def test_a_control_that_diverges_leaves_a_row_and_a_warning():
    def explode(ticket, snapshot):
        weights = {name: 1e38 + 0 * w for name, w in ticket.weights.items()}
        return kl.Ticket(ticket.masks, weights, ticket.step, ticket.steps)

    search = make(schedule=[0.5], controls={"explode": (explode, 1), "reinit": 1})
    with pytest.warns(UserWarning, match=r"explode: .*are NaN"):
        table = search.search(**FIT)
    row = table.query("variant == 'explode'")
    assert row["final_val_loss"].isna().all() and len(row) == 1
    assert table.query("variant == 'reinit'")["final_val_loss"].notna().all()
    verdict = search.verdict()
    assert not verdict["beats_explode"].item()
