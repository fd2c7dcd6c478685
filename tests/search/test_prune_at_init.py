"""Tickets found before any training."""

import numpy as np
import pytest

import keras_lottery as kl
from keras_lottery.search import LotteryTicketSearch
from tests.search.small_search import FIT, X, Y, build, make


@pytest.mark.parametrize(
    ("name", "levels", "replicates"),
    [pytest.param("large_final", None, 2, marks=pytest.mark.once), ("snip", [2], 1)],
)
def test_tickets_found_before_any_training(name, levels, replicates, tmp_path):
    """Each level by itself, from the initial weights, whatever is trained."""
    seen = []

    def criterion(snapshot):
        seen.append(snapshot)
        return kl.criteria.get(name)(snapshot)

    asked = {"criterion": criterion, "replicates": replicates, "report_levels": levels}
    search = make(tmp_path, **asked, controls={}, prune_at_init=True)
    table = search.search(**FIT | {"epochs": 1})
    assert set(table["level"]) == {0, *(levels or [1, 2])}
    masks = []
    for replicate in range(replicates):
        ticket = search.ticket(2, replicate)
        initial = search.ticket(0, replicate).weights
        assert_same(ticket.weights, initial)
        dense = kl.mask_model(build())
        kl.set_state(dense, initial)
        kl.prune(dense, 0.75, name, data=(X[:100], Y[:100]))
        masks.append(kl.get_masks(dense))
        assert ticket.masks == masks[-1]
    assert replicates == 1 or masks[0] != masks[1]
    # The rehearsal, and the levels.
    assert len(seen) == 1 + 2 * replicates
    for snapshot in seen:
        assert snapshot.masks.sparsity == 0
        assert_same(snapshot.final, snapshot.initial)
    assert LotteryTicketSearch.load(tmp_path, criterion=criterion).prune_at_init
    with pytest.raises(ValueError, match="prune_at_init: True there, False here"):
        make(tmp_path, **asked, controls={}).search(**FIT | {"epochs": 1})


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "fit"),
    [
        ({"rewind": "learning_rate"}, {}),
        ({"rewind": "continue"}, {}),
        ({"rewind_to": 3}, {}),
        ({}, {"mask_epochs": 1}),
    ],
)
def test_tickets_found_before_training_start_from_the_initial_weights(arguments, fit):
    search = make(prune_at_init=True, **arguments)
    with pytest.raises(ValueError, match="prune_at_init=True finds tickets before"):
        search.search(**FIT | fit)
