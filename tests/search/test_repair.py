"""Searches whose tickets go on from repaired weights."""

import keras
import numpy as np
import pytest

import keras_lottery as kl

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 6)).astype("float32")
Y = (X @ rng.normal(size=(6, 3))).argmax(axis=1)


def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def search(**how):
    made = kl.LotteryTicketSearch(
        build, [0.4, 0.6], "wanda", rewind="fine_tune", controls=None, workers=0, **how
    )
    fit = {"validation_data": (X, Y), "batch_size": 8, "epochs": 2, "verbose": 0}
    made.search(X, Y, **fit)
    return made


def test_tickets_start_from_repaired_weights(tmp_path):
    plain, repaired = search(), search(repair="least_squares", directory=tmp_path)
    one, other = plain.ticket(1), repaired.ticket(1)
    assert one.masks == other.masks
    name = next(iter(one.masks))
    assert not np.array_equal(one.weights[name], other.weights[name])
    assert not other.weights[name][~other.masks[name]].any()
    again = kl.LotteryTicketSearch.load(tmp_path)
    assert again.repair == "least_squares"
    with pytest.raises(ValueError, match="repair"):
        search(directory=tmp_path)
    own = kl.repair.LeastSquares(damping=0.1)
    search(repair=own, directory=tmp_path, overwrite=True)
    assert kl.LotteryTicketSearch.load(tmp_path).repair == own


def test_masks_that_a_repair_chooses_are_the_tickets():
    ticket = search(repair=kl.repair.ADMM(choose=True)).ticket(1)
    for name, mask in ticket.masks.items():
        assert np.array_equal(ticket.weights[name] != 0, mask)


@pytest.mark.parametrize(
    "name, kind", [("admm", kl.repair.ADMM), ("sparsegpt", kl.repair.SparseGPT)]
)
def test_a_repair_of_the_criterion_s_name_chooses_masks_as_in_prune(name, kind):
    made = kl.LotteryTicketSearch(build, [0.5], name, rewind="fine_tune", repair=name)
    assert made._choices.repair == kind(choose=True)
    made = kl.LotteryTicketSearch(build, [0.5], rewind="fine_tune", repair=name)
    assert made._choices.repair == kind()


def test_what_is_not_trained_on_is_not_repaired():
    for rewind in ("weights", "continue"):
        with pytest.raises(ValueError, match="`None` where tickets start"):
            kl.LotteryTicketSearch(build, [0.5], rewind=rewind, repair="admm")
    with pytest.raises(ValueError, match="least_squares"):
        kl.LotteryTicketSearch(build, [0.5], rewind="fine_tune", repair="typo")
