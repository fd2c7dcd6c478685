"""The search: what it trains, from where, and what it tells of it."""

import keras
import numpy as np
import pandas as pd
import pytest

import keras_lottery as kl
from keras_lottery import results as tables
from keras_lottery.engines.objective import ACCURACY
from keras_lottery.search.store import TrainingId
from tests.search.small_search import FIT, X, build, fit_engine, make, numbers, stored


@pytest.mark.once
def test_results_have_one_tidy_row_for_each_training(finished):
    table = finished.results()
    assert list(table.columns) == tables.columns(ACCURACY)
    counts = table.groupby(["level", "variant"]).size()
    assert counts.to_dict() == {
        (0, "ticket"): 2,
        (1, "reinit"): 2,
        (1, "ticket"): 2,
        (2, "reinit"): 2,
        (2, "ticket"): 2,
    }
    assert sorted(table["density"].unique()) == [0.25, 0.5, 1.0]
    assert table.notna().all(axis=None)
    assert (table["seconds"] > 0).all()
    stored = pd.read_csv(finished.store.results)
    pd.testing.assert_frame_equal(stored, table)


@pytest.mark.representative
def test_the_same_seed_gives_the_same_search_and_another_one_does_not(finished):
    again = make()
    again.search(**FIT)
    first = numbers(finished).query("replicate == 0").reset_index(drop=True)
    pd.testing.assert_frame_equal(numbers(again), first)
    for level in (1, 2):
        assert again.ticket(level).masks == finished.ticket(level).masks
    other = make(schedule=[0.5], controls={}, seed=1)
    other.search(**FIT)
    assert other.curve(0) != finished.curve(0)


@pytest.mark.once
def test_what_is_not_trained_is_not_drawn_anew():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Normalization(),
            keras.layers.Dense(8, name="frozen", trainable=False),
            keras.layers.Dense(2, name="output"),
        ]
    )
    model.layers[0].adapt(5 * X + 3)
    masked = kl.mask_model(model)
    np.testing.assert_allclose(
        masked.predict(X[:5], verbose=0), model.predict(X[:5], verbose=0), rtol=1e-5
    )
    state, drawn = kl.get_state(masked), kl.layers.redraw(masked, 1)
    same = {name for name in state if np.array_equal(state[name], drawn[name])}
    assert "normalization/mean" in same and "frozen/kernel" in same
    assert "output/kernel" not in same


def test_replicates_start_from_other_weights(finished):
    first, second = finished.ticket(0, 0), finished.ticket(0, 1)
    name = "output/kernel"
    assert not np.array_equal(first.weights[name], second.weights[name])


def test_a_pruned_weight_stays_pruned(finished):
    for replicate in (0, 1):
        one, two = (finished.ticket(level, replicate).masks for level in (1, 2))
        assert all((two[name] <= one[name]).all() for name in one)


@pytest.mark.representative
def test_tickets_restart_from_the_initial_weights_to_the_bit(finished):
    dense = finished.ticket(0)
    for level in (1, 2):
        ticket = finished.ticket(level)
        assert ticket.step == 0
        for name, initial in dense.weights.items():
            np.testing.assert_array_equal(ticket.weights[name], initial)
        # The trained weights are others: the initial ones are no alias of them.
        assert not np.array_equal(ticket.trained["dense/bias"], initial)


def test_every_replicate_trains_and_rewinds_to_its_own_initial_weights(finished):
    for replicate in (0, 1):
        initial = finished.ticket(0, replicate).weights
        dense = stored(finished, TrainingId(replicate, 0, "ticket"))[1]
        for name, value in initial.items():
            np.testing.assert_array_equal(dense["rewind_point"][name], value)
            np.testing.assert_array_equal(
                finished.ticket(2, replicate).weights[name], value
            )


def test_no_mask_of_an_earlier_training_is_left_in_a_later_one(finished):
    engine = fit_engine()
    dense, sparse = finished.ticket(0), finished.ticket(2)
    fresh = engine.train(dense, seed=3)
    engine.train(sparse, seed=3)
    again = engine.train(dense, seed=3)
    for name, value in fresh.final.items():
        np.testing.assert_array_equal(again.final[name], value)
        np.testing.assert_array_equal(again.rewind_point[name], dense.weights[name])


def test_masks_are_those_of_the_largest_trained_weights(finished):
    for level, kept in ((1, 48), (2, 24)):
        before, ticket = finished.ticket(level - 1), finished.ticket(level)
        scores = np.concatenate(
            [np.abs(before.trained[n][before.masks[n]]) for n in ticket.masks]
        )
        chosen = np.concatenate(
            [ticket.masks[n][before.masks[n]] for n in ticket.masks]
        )
        assert chosen.sum() == kept
        assert scores[chosen].min() >= scores[~chosen].max()


def test_trained_model_scores_what_the_results_say(finished):
    row = finished.results().query("variant == 'ticket' and level == 2").iloc[0]
    model = finished.ticket(2).trained_model()
    accuracy = model.evaluate(*FIT["test_data"], verbose=0, return_dict=True)[
        "accuracy"
    ]
    assert accuracy == pytest.approx(row["final_test_accuracy"])
    initial = finished.ticket(2).initial_model()
    weights = kl.get_state(initial)["dense/kernel"]
    assert (weights[~finished.ticket(2).masks["dense/kernel"]] == 0).all()


def test_early_stop_is_the_first_minimum_of_validation_loss(finished):
    curve = finished.curve(1)
    assert curve["step"] == [4, 8, 12]
    row = finished.results().query("variant == 'ticket' and level == 1").iloc[0]
    best = int(np.argmin(curve["val_loss"]))
    assert row["early_stop_step"] == curve["step"][best]
    assert row["early_stop_val_accuracy"] == curve["val_accuracy"][best]


@pytest.mark.once
def test_replicate_0_keeps_the_weights_of_the_given_model_which_is_left_untouched():
    model = build()
    before = model.get_weights()
    search = make(model=model, schedule=[0.5])
    search.search(**FIT)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not kl.layers.is_masked(model)
    np.testing.assert_array_equal(
        search.ticket(0).weights["output/kernel"],
        model.get_layer("output").get_weights()[0],
    )


@pytest.mark.representative
def test_controls_change_what_they_name_and_nothing_else():
    seen = {}

    def spy(control):
        def wrapped(ticket, snapshot):
            made = kl.controls.get(control)(ticket, snapshot)
            seen[control] = (ticket, made)
            return made

        return wrapped

    # No two layers of this network are alike.
    names = kl.controls.CONTROLS.keys() - {"permute_layers"}
    controls = {name: (spy(name), 1) for name in sorted(names)}
    make(controls=controls, schedule=[0.5]).search(**FIT | {"epochs": 1})
    for name, (ticket, made) in seen.items():
        kept = {n: int(mask.sum()) for n, mask in ticket.masks.items()}
        assert {n: int(mask.sum()) for n, mask in made.masks.items()} == kept
        other_masks = name in ("shuffle", "random", "invert")
        assert (made.masks == ticket.masks) == (not other_masks)
        same = np.array_equal(
            made.weights["dense/kernel"], ticket.weights["dense/kernel"]
        )
        # Tickets go back to step 0, where weights are the initial ones.
        initial = ("initial_magnitudes", "initial_signs", "initial_weights")
        assert same == (name in ("shuffle", "invert", *initial))
        assert (made.step, made.steps) == (ticket.step, ticket.steps)


@pytest.mark.once
def test_seeded_initialisers_are_drawn_anew_for_replicates_controls_and_trials():
    search = make(
        model=build(seed=3), replicates=2, schedule=[0.5], controls={"reinit": 2}
    )
    search.search(**FIT | {"epochs": 1})
    first, second = search.ticket(0, 0).weights, search.ticket(0, 1).weights
    assert not np.array_equal(first["dense/kernel"], second["dense/kernel"])
    table = search.results().query("level == 1 and replicate == 0")
    assert table["final_val_loss"].nunique() == 3


@pytest.mark.once
def test_a_search_prunes_in_the_rounds_of_its_criterion():
    """SynFlow from the trained weights: as `prune` does it."""
    search = make(criterion="synflow", schedule=[0.9], controls={"invert": 1})
    search.search(**FIT | {"epochs": 1})
    model = search.ticket(0).trained_model()
    kl.prune(model, 0.9, "synflow")
    assert search.ticket(1).masks == kl.get_masks(model)


@pytest.mark.once
def test_criteria_of_what_training_did():
    """The rehearsal before training is not taken for one that moved nothing."""
    search = make(criterion="distance", schedule=[0.5], controls={})
    search.search(**FIT | {"epochs": 1})
    initial, trained = search.ticket(0).weights, search.ticket(0).trained
    masks = search.ticket(1).masks
    far = {name: abs(trained[name] - initial[name]) for name in masks}
    least = min(far[name][mask].min() for name, mask in masks.items())
    assert least >= max(far[name][~mask].max() for name, mask in masks.items())
    early = make(criterion="distance", prune_at_init=True)
    with pytest.raises(ValueError, match="before and after training"):
        early.search(**FIT)


@pytest.mark.once
@pytest.mark.parametrize(
    ("model", "grid"),
    [
        (
            "lenet_300_100",
            {3: 51.28, 7: 21.07, 9: 13.52, 12: 6.95, 15: 3.58, 16: 2.87, 18: 1.85},
        ),
        ("conv_2", {11: 8.8, 14: 4.6}),
        ("conv_4", {11: 11.1, 12: 9.2}),
    ],
)
def test_layerwise_levels_are_the_papers_grid(model, grid):
    recipe = kl.models.recipe(model)
    shape = (28, 28, 1) if model.startswith("lenet") else (32, 32, 3)
    masks = kl.get_masks(kl.mask_model(kl.models.get(model)(shape)))
    rate = max(recipe.rates.values())
    allocation = kl.allocation.Layerwise(recipe.rates, rate)
    for level, density in grid.items():
        sparsity = allocation.total_sparsity(1 - (1 - rate) ** level, masks)
        digits = 2 if model == "lenet_300_100" else 1
        assert round(100 * (1 - sparsity), digits) == density


@pytest.mark.parametrize("mask_epochs", [None, "auto"])
def test_layers_have_sparsities_of_their_own_at_each_level(tmp_path, mask_epochs):
    levels = [{"dense*": 0.5, "output": 0.0}, {"dense*": 0.75, "output": 0.25}]
    arguments = FIT | {"mask_epochs": mask_epochs}
    search = make(tmp_path, schedule=levels, controls={}, replicates=1)
    search.search(**arguments)
    shares = [
        {name: 1 - mask.mean() for name, mask in search.masks(level).items()}
        for level in (1, 2)
    ]
    (hidden,) = shares[0].keys() - {"output/kernel"}
    assert shares[0] == {hidden: 0.5, "output/kernel": 0.0}
    assert shares[1] == {hidden: 0.75, "output/kernel": 0.25}
    # Stored, it is known again, and goes on with one more level.
    again = kl.LotteryTicketSearch.load(tmp_path)
    assert again.schedule == search.schedule and again.allocation is None
    if mask_epochs is None:
        longer = [*levels, {"dense*": 0.75, "output": 0.5}]
        more = make(tmp_path, schedule=longer, controls={}, replicates=1)
        assert set(more.search(**arguments)["level"]) == {0, 1, 2, 3}


@pytest.mark.once
def test_sparsities_of_layers_are_checked_before_any_training(tmp_path):
    with pytest.raises(ValueError, match=r"`allocation` to be left out.*`schedule`"):
        make(schedule=[{"dense*": 0.5}], allocation="uniform")
    with pytest.raises(ValueError, match="'conv' matches none of the weights"):
        make(tmp_path, schedule=[{"conv": 0.5}], controls={}).search(**FIT)
    assert not list(tmp_path.iterdir())
