"""What the analyses read of a stored search."""

import numpy as np
import pytest

from keras_lottery import LotteryTicketSearch
from keras_lottery.study.analysis import (
    densities_by_level,
    generalisation_gap,
    layer_densities,
    mask_overlap,
    weight_correlation,
    weight_movement,
)
from tests.study.analysis.small_networks import TEST, TRAIN, VALIDATION, mlp

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    search = LotteryTicketSearch(
        mlp(),
        schedule=[0.5, 0.8],
        replicates=2,
        directory=tmp_path_factory.mktemp("search"),
        engine="fit",
        workers=0,
    )
    search.search(
        *TRAIN, validation_data=VALIDATION, test_data=TEST, epochs=2, verbose=0
    )
    return search


def test_densities_are_those_of_every_ticket(search):
    table = densities_by_level(search)
    assert len(table) == 3 * 2 * 3
    assert table["level"].is_monotonic_increasing
    for level in range(3):
        for replicate in range(2):
            part = table.query("level == @level and replicate == @replicate")
            masks = search.ticket(level, replicate).masks
            expected = layer_densities(masks)
            np.testing.assert_array_equal(part[expected.columns], expected)
    total = table.query("weight == 'total' and replicate == 0")["density"]
    assert total.tolist() == pytest.approx([1, 0.5, 0.2], abs=0.01)


def test_densities_of_an_opened_search(search):
    opened = LotteryTicketSearch.load(search.store.directory)
    assert densities_by_level(opened).equals(densities_by_level(search))


def test_gap_is_train_less_test_accuracy_of_every_training(search):
    table, results = generalisation_gap(search), search.results()
    assert len(table) == len(results) == 2 * (3 + 2)
    gap = results["final_train_accuracy"] - results["final_test_accuracy"]
    np.testing.assert_allclose(table["gap"], gap)
    ticket = search.ticket(1, 1)
    row = table.query("level == 1 and replicate == 1 and variant == 'ticket'").iloc[0]
    model = ticket.trained_model()
    for column, data in (("train_accuracy", TRAIN), ("accuracy", TEST)):
        accuracy = model.evaluate(*data, verbose=0, return_dict=True)["accuracy"]
        assert row[column] == pytest.approx(accuracy)
    other = generalisation_gap(search, on="validation")
    np.testing.assert_array_equal(other["accuracy"], results["final_val_accuracy"])


def test_gap_on_other_data_is_refused(search):
    with pytest.raises(ValueError, match="Received: on='train'"):
        generalisation_gap(search, on="train")


def test_a_directory_without_tickets_is_refused(tmp_path):
    empty = LotteryTicketSearch(mlp(), [0.5], directory=tmp_path)
    with pytest.raises(ValueError, match="call `search` first"):
        densities_by_level(empty)
    with pytest.raises(ValueError, match="Expected results on validation data"):
        generalisation_gap(empty)


def test_tickets_of_a_search_can_be_compared(search):
    dense, ticket = search.ticket(0), search.ticket(2)
    assert len(weight_movement(dense.weights, dense.trained, ticket.masks)) == 18
    table = weight_correlation(ticket.weights, ticket.trained, 0.2, ticket.masks)
    assert table["size"].iloc[-1] == ticket.masks.kept
    # What is pruned stays pruned.
    overlap = mask_overlap(search.ticket(1).masks, ticket.masks)
    assert overlap["shared"].iloc[-1] == ticket.masks.kept
