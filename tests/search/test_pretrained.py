"""Searches that start from weights which were trained before."""

import numpy as np
import pytest

from keras_lottery import LotteryTicketSearch, compare_transfer
from keras_lottery.keras_bridge.layers import get_state
from tests.search.small_search import DATA, FIT, build, make

SHORT = FIT | {"epochs": 1}


@pytest.fixture(scope="module")
def trained():
    model = build()
    for weight in model.trainable_weights:
        weight.assign(weight + 0.5)
    return model


@pytest.fixture(scope="module")
def search(trained, tmp_path_factory):
    search = make(
        tmp_path_factory.mktemp("run"),
        trained,
        schedule=[0.5],
        replicates=2,
        pretrained=["dense", "batch_*"],
    )
    search.search(**SHORT)
    return search


def test_every_replicate_starts_from_them_with_a_head_of_its_own(search, trained):
    before = get_state(trained)
    one, two = search.initial(0), search.initial(1)
    for name in ("dense/kernel", "dense/bias", "batch_normalization/gamma"):
        np.testing.assert_array_equal(one[name], before[name])
        np.testing.assert_array_equal(two[name], before[name])
    np.testing.assert_array_equal(one["output/kernel"], before["output/kernel"])
    assert not np.array_equal(two["output/kernel"], one["output/kernel"])


def test_rewinding_goes_back_to_them_and_reinit_does_not(search, trained):
    before = get_state(trained)
    for replicate in (0, 1):
        start = search.ticket(1, replicate).weights
        np.testing.assert_array_equal(start["dense/kernel"], before["dense/kernel"])
    assert search.curve(1, "reinit", 1) != search.curve(1, "ticket", 1)


def test_it_is_stored_and_compared(search, trained):
    assert LotteryTicketSearch.load(search.directory).pretrained == search.pretrained
    other = make(search.directory, trained, schedule=[0.5], replicates=2)
    with pytest.raises(ValueError, match=r"pretrained: \['dense', 'batch_\*'\] there"):
        other.search(**SHORT)


@pytest.mark.once
@pytest.mark.parametrize("replicates", [1, 2])
def test_a_pattern_that_matches_nothing_is_named_before_training(replicates, trained):
    search = make(model=trained, replicates=replicates, pretrained="encoder*")
    with pytest.raises(ValueError, match=r"`pretrained` names 'encoder\*'"):
        search.search(**SHORT)


@pytest.mark.once
@pytest.mark.parametrize("pretrained", [None, 1, [], [1], [""], {"a": 1}])
def test_what_names_no_layers_is_refused(pretrained):
    with pytest.raises(ValueError, match="pretrained="):
        make(pretrained=pretrained)


@pytest.mark.once
def test_replicates_asked_for_later_share_what_the_first_had(trained, tmp_path):
    fit = SHORT | {"epochs": None, "steps": 1, "eval_freq": 1}
    asked = {"schedule": [0.5], "pretrained": ["dense"], "controls": None}
    make(tmp_path, trained, **asked).search(**fit)
    other = build()
    more = make(tmp_path, other, **asked, replicates=2)
    with pytest.warns(UserWarning, match="goes on with its own"):
        more.search(**fit)
    one, two = (more.initial(replicate)["dense/kernel"] for replicate in (0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, get_state(other)["dense/kernel"])


@pytest.mark.once
def test_heads_that_are_drawn_equal_are_refused_where_masks_are_elsewhere():
    """Error bars would be those of one and the same start."""
    search = make(
        model=lambda: build(seed=1),
        prunable=["dense"],
        pretrained=["dense"],
        replicates=2,
        schedule=[0.5],
    )
    with pytest.raises(ValueError, match="Replicate 1 would start from the weights"):
        search.search(**SHORT)


@pytest.mark.once
def test_a_control_that_cannot_be_made_is_known_before_training(tmp_path):
    search = make(tmp_path, controls=["permute_layers"])
    with pytest.raises(ValueError, match="whose names differ"):
        search.search(**SHORT)
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_dense_networks_of_a_transfer_start_from_them(search, trained, tmp_path):
    compare_transfer(
        search.ticket(1),
        trained,
        **DATA,
        steps=1,
        eval_freq=1,
        replicates=2,
        pretrained=True,
        controls=None,
        engine="fit",
        workers=0,
        directory=tmp_path,
        verbose=0,
    )
    from keras_lottery.search.records import Reader
    from keras_lottery.search.store import Store, TrainingId

    reader = Reader(Store(tmp_path))
    starts = [
        reader.training(TrainingId(replicate, 0, "ticket"), "start")[1]["start"]
        for replicate in (0, 1)
    ]
    for name, array in get_state(trained).items():
        if "float" in array.dtype.name:
            np.testing.assert_array_equal(starts[1][name], starts[0][name])
            np.testing.assert_array_equal(starts[1][name], array)
