import keras
import numpy as np
import pytest

from keras_lottery import mask_model, prune
from keras_lottery.in_fit.callbacks import Checkpoints
from keras_lottery.keras_bridge.layers import get_masks, get_state, set_state
from keras_lottery.study.analysis import layer_criticality
from keras_lottery.study.analysis.criticality import layer_groups
from tests.study.analysis.small_networks import (
    TEST,
    TRAIN,
    assert_same,
    everything,
    mlp,
    normalised,
)


@pytest.fixture(scope="module")
def trained():
    """A pruned model with normalisation, and the states that its training passed."""
    model = mask_model(normalised())
    prune(model, 0.3)
    checkpoints = Checkpoints()
    model.fit(*TRAIN, epochs=3, verbose=0, callbacks=[checkpoints])
    return model, checkpoints.states


@pytest.fixture(scope="module")
def table(trained):
    model, states = trained
    before = everything(model)
    table = layer_criticality(model, states, TEST, replicates=2, seed=3)
    assert_same(before, everything(model))
    return table


def accuracy(model, state=None):
    own = get_state(model)
    if state is not None:
        set_state(model, state)
    found = model.evaluate(*TEST, verbose=0, return_dict=True)["accuracy"]
    set_state(model, own)
    return found


def test_checkpoints_are_the_states_after_each_epoch(trained):
    model, states = trained
    assert list(states) == [0, 1, 2, 3]
    for name, array in get_state(model).items():
        np.testing.assert_array_equal(states[3][name], array)
    assert not np.array_equal(states[0]["hidden/kernel"], states[1]["hidden/kernel"])
    chosen = Checkpoints([1])
    mlp().fit(*TRAIN, epochs=2, verbose=0, callbacks=[chosen])
    assert list(chosen.states) == [1]


def test_one_row_for_each_layer_and_checkpoint(table):
    labels = [(0, 0), (1, 0), (2, 0), (3, 0), ("random", 0), ("random", 1)]
    rows = table[["layer", "checkpoint", "replicate"]].to_numpy().tolist()
    assert rows == [[layer, *each] for layer in ("hidden", "output") for each in labels]


def test_the_last_checkpoint_changes_nothing(trained, table):
    last = table.query("checkpoint == 3")
    assert last["accuracy"].tolist() == [accuracy(trained[0])] * 2
    assert last["drop"].tolist() == [0, 0]


def test_a_layer_goes_back_with_its_bias_and_normalisation(trained, table):
    model, states = trained
    state = get_state(model)
    back = {n: a for n, a in states[0].items() if n.startswith(("hidden/", "norm/"))}
    assert len(back) == 6
    found = table.query("layer == 'hidden' and checkpoint == 0")["accuracy"].item()
    assert found == accuracy(model, {**state, **back})
    assert table["drop"].tolist() == pytest.approx(
        (accuracy(model) - table["accuracy"]).tolist()
    )


def test_random_layers_differ_and_follow_the_seed(trained, table):
    model, _ = trained
    drawn = table.query("checkpoint == 'random'")
    assert drawn.groupby("layer")["loss"].nunique().tolist() == [2, 2]
    again = layer_criticality(model, {}, TEST, replicates=2, seed=3)
    assert again["loss"].tolist() == drawn["loss"].tolist()
    other = layer_criticality(model, {}, TEST, replicates=1, seed=4)
    assert not set(other["loss"]) & set(drawn["loss"])


@pytest.mark.once
def test_masks_stay(trained):
    model, states = trained
    dense = {name: np.ones_like(array) for name, array in states[0].items()}
    dense |= {n: a for n, a in states[0].items() if "int" in a.dtype.name}
    masked = dict(dense)
    for name, mask in get_masks(model).items():
        masked[name] = np.where(mask, dense[name], 0)
    table = layer_criticality(model, {"a": dense, "b": masked}, TEST, replicates=0)
    losses = table.pivot(index="layer", columns="checkpoint", values="loss")
    assert losses["a"].tolist() == losses["b"].tolist()


@pytest.mark.once
def test_layers_can_be_chosen(trained):
    model, states = trained
    chosen = {"all": list(states[0])}
    table = layer_criticality(model, states, TEST, replicates=0, layers=chosen)
    start = table.query("checkpoint == 0")["accuracy"].item()
    assert start == accuracy(model, states[0])


@pytest.mark.once
def test_groups_follow_the_graph_not_the_order():
    inputs = keras.Input((4,))
    main = keras.layers.Dense(3, name="main")(inputs)
    side = keras.layers.Dense(3, name="side")(inputs)
    main = keras.layers.ReLU()(main)
    main = keras.layers.BatchNormalization(name="norm_main")(main)
    side = keras.layers.BatchNormalization(name="norm_side")(side)
    both = keras.layers.Add()([main, side])
    both = keras.layers.LayerNormalization(name="norm_both")(both)
    groups = layer_groups(keras.Model(inputs, both))
    for layer in ("main", "side"):
        assert {name.split("/")[0] for name in groups[layer]} == {
            layer,
            f"norm_{layer}",
        }
    assert [name.split("/")[0] for name in groups["norm_both"]] == ["norm_both"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoints": {"half": {}}}, r"`checkpoints\['half'\]` to be a state"),
        ({"checkpoints": {"random": {}}}, "other names than 'random'"),
        ({"replicates": -1}, "Received: replicates=-1"),
        ({"layers": {"mine": ["nothing"]}}, r"Received: \['nothing'\] for 'mine'"),
        ({"model": keras.Sequential()}, "`model` to be a built model"),
    ],
)
def test_what_does_not_fit_is_refused(trained, change, message):
    model, states = trained
    arguments = {"model": model, "checkpoints": states, "data": TEST}
    with pytest.raises(ValueError, match=message):
        layer_criticality(**(arguments | change))
