"""Everything that is registered keeps to its contract, and what does not is named."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery import (
    allocation,
    controls,
    criteria,
    grouping,
    repair,
    schedules,
    testing,
)
from keras_lottery.keras_bridge.layers import (
    MASKED_LAYERS,
    mask_model,
    register_masked,
)
from keras_lottery.keras_bridge.layers.kinds import ORDINARY_LAYERS
from keras_lottery.masks import Masks
from keras_lottery.testing.example import SHAPES
from keras_lottery.tickets.allocation import Global
from keras_lottery.tickets.criteria import SignForm
from keras_lottery.tickets.grouping import Groups, Kind, Weights
from keras_lottery.tickets.schedules import Schedule
from tests.models_zoo import cases

rng = np.random.default_rng(0)


def batch(*shape):
    return rng.normal(size=(4, *shape)).astype("float32")


WORDS = np.arange(12, dtype="int32").reshape(4, 3)
# How to build each layer that has a masked form, and inputs for it.
LAYERS = {
    layers.Dense: (lambda: layers.Dense(3), batch(5)),
    layers.EinsumDense: (lambda: layers.EinsumDense("ab,bc->ac", 3), batch(5)),
    layers.Conv1D: (lambda: layers.Conv1D(3, 2), batch(5, 2)),
    layers.Conv2D: (lambda: layers.Conv2D(3, 2), batch(4, 4, 2)),
    layers.Conv3D: (lambda: layers.Conv3D(3, 2), batch(3, 3, 3, 2)),
    layers.Conv1DTranspose: (lambda: layers.Conv1DTranspose(3, 2), batch(5, 2)),
    layers.Conv2DTranspose: (lambda: layers.Conv2DTranspose(3, 2), batch(4, 4, 2)),
    layers.Conv3DTranspose: (lambda: layers.Conv3DTranspose(3, 2), batch(3, 3, 3, 2)),
    layers.DepthwiseConv1D: (lambda: layers.DepthwiseConv1D(2), batch(5, 2)),
    layers.DepthwiseConv2D: (lambda: layers.DepthwiseConv2D(2), batch(4, 4, 2)),
    layers.SeparableConv1D: (lambda: layers.SeparableConv1D(3, 2), batch(5, 2)),
    layers.SeparableConv2D: (lambda: layers.SeparableConv2D(3, 2), batch(4, 4, 2)),
    layers.LSTMCell: (lambda: layers.RNN(layers.LSTMCell(3)), batch(4, 2)),
    layers.GRUCell: (lambda: layers.RNN(layers.GRUCell(3)), batch(4, 2)),
    layers.SimpleRNNCell: (lambda: layers.RNN(layers.SimpleRNNCell(3)), batch(4, 2)),
    layers.Embedding: (lambda: layers.Embedding(12, 3), WORDS),
    layers.ReversibleEmbedding: (lambda: layers.ReversibleEmbedding(12, 3), WORDS),
}


# Those that look at signs differ in the criterion inside, which is there itself.
SIGN_FORMS = [n for n, c in criteria.CRITERIA.items() if isinstance(c, SignForm)]


OF_MODELS = tuple(criteria._OF_MODELS)


@pytest.mark.parametrize(
    "name", cases([n for n in criteria.CRITERIA if n not in SIGN_FORMS[2:]], OF_MODELS)
)
def test_every_criterion(name):
    testing.check_criterion(name)


@pytest.mark.once
@pytest.mark.parametrize("name", allocation.ALLOCATIONS)
def test_every_allocation(name):
    testing.check_allocation(name)


# Blocks count by their weights, and miss the count by half of one.
GROUPINGS = {
    **dict.fromkeys(grouping.GROUPINGS, 0),
    "block_1x4": 2,
    (3, 2): 3,
    # Columns count by their weights: those of the example's largest kernel.
    "column": 8,
    "2:4": 1,
}


@pytest.mark.once
@pytest.mark.parametrize("granularity", GROUPINGS)
def test_every_grouping(granularity):
    model = None
    if granularity == "head":
        inputs = keras.Input((3, 8))
        heads = layers.GroupQueryAttention(2, 20, 10)
        heads_of_one = layers.MultiHeadAttention(10, 2)(inputs, inputs)
        model = mask_model(keras.Model(inputs, heads(heads_of_one, inputs)))
    testing.check_grouping(granularity, GROUPINGS[granularity], model)


@pytest.mark.once
def test_groupings_by_layer():
    testing.check_grouping({"dense": "2:4", "*": (2, 1)}, 2)


@pytest.mark.once
@pytest.mark.parametrize("name", controls.CONTROLS)
def test_every_control(name):
    testing.check_control(name)


@pytest.mark.parametrize("name", repair.REPAIRS)
def test_every_repair(name):
    filters = name.startswith("greedy")
    testing.check_repair(name, "filter" if filters else "weight")


@pytest.mark.once
@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule(name):
    testing.check_schedule(name)


# Trained, saved and loaded in models of keras_bridge/layers/test_architectures.py.
ELSEWHERE = {
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv3DTranspose,
    layers.DepthwiseConv1D,
    layers.SeparableConv1D,
    layers.GRUCell,
    layers.SimpleRNNCell,
}


ON_EVERY_BACKEND = layers.Dense, layers.SeparableConv2D, layers.LSTMCell


@pytest.mark.parametrize(
    "layer", cases([k for k in LAYERS if k not in ELSEWHERE], ON_EVERY_BACKEND)
)
def test_every_masked_layer(layer):
    testing.check_masked_layer(*LAYERS[layer])


def test_every_layer_of_keras_that_has_a_masked_form_is_tested():
    ours = {k for k in MASKED_LAYERS if k.__module__.startswith("keras.")}
    assert ours == LAYERS.keys()


def scores(snapshot, value=1.0):
    return {name: np.full(m.shape, value) for name, m in snapshot.masks.items()}


def spoils(snapshot):
    for array in snapshot.final.values():
        array[...] = 0
    return scores(snapshot)


@pytest.mark.once
@pytest.mark.parametrize(
    ("criterion", "rule"),
    [
        (lambda s: [1, 2], "arrays of the weights' shapes by name"),
        (lambda s: {n: a.ravel() for n, a in scores(s).items()}, "weights' shapes"),
        (lambda s: scores(s, "a"), "scores are numbers"),
        (lambda s: scores(s, np.nan), "is a number.*NaN for `conv/kernel`"),
        (lambda s: {n: np.random.random(m.shape) for n, m in s.masks.items()}, "rng"),
        (spoils, "changes nothing.*'final conv/kernel'"),
    ],
)
def test_a_criterion_that_breaks_a_rule(criterion, rule):
    with pytest.raises(AssertionError, match=f"Broken rule.*{rule}"):
        testing.check_criterion(criterion)


def one_more(scores, masks, sparsity):
    return Global()(scores, masks, sparsity - 1.001 / masks.size)


def smallest(scores, masks, sparsity):
    return Global()({n: -s for n, s in scores.items()}, masks, sparsity)


def revives(scores, masks, sparsity):
    return Global()(scores, Masks.dense({n: m.shape for n, m in masks.items()}), 0.35)


def without_nan(scores, masks, sparsity):
    """Takes NaN for 0, and ranks what is pruned too."""
    clean = {n: np.nan_to_num(s) for n, s in scores.items()}
    return Global()(clean, masks, sparsity)


def last_of_equals(scores, masks, sparsity):
    flipped = {n: np.flip(s) for n, s in scores.items()}
    back = Masks({n: np.flip(m) for n, m in masks.items()})
    new = Global()(flipped, back, sparsity)
    return Masks({n: np.flip(m) for n, m in new.items()})


@pytest.mark.once
@pytest.mark.parametrize(
    ("allocate", "rule"),
    [
        (lambda s, m, p: dict(Global()(s, m, p)), "makes `Masks`"),
        (one_more, "keeps 455 weights at sparsity 0.35. Received: 456"),
        (smallest, "the largest scores are kept"),
        (last_of_equals, "of equals, the first"),
        (revives, "keeps|pruned stays pruned"),
        (without_nan, "ValueError for scores that are NaN"),
    ],
)
def test_an_allocation_that_breaks_a_rule(allocate, rule):
    with pytest.raises(AssertionError, match=f"Broken rule.*{rule}"):
        testing.check_allocation(allocate)


class Greedy(Weights):
    """Takes a row of weights more than the allocation does."""

    def fold(self, scores, masks):
        def unfold(chosen):
            dense = chosen["dense/kernel"].copy()
            if chosen.sparsity > masks.sparsity:
                dense[np.nonzero(dense)[0][0]] = False
            return Masks({**chosen, "dense/kernel": dense})

        return Groups(scores, masks, unfold)


class Reviving(Weights):
    def fold(self, scores, masks):
        return Groups(scores, masks, lambda chosen: Masks.dense(SHAPES))


class Moving(Weights):
    """Keeps as many weights in all, and not in each layer."""

    def rearrange(self, masks, preference, alive):
        return Global()(preference, alive, masks.sparsity)


class Renaming(Weights):
    def left(self, masks):
        return Masks({"all": np.concatenate([m.ravel() for m in masks.values()])})


class Idle(Weights):
    def idle(self, before, after):
        return {"dense/bias": np.ones(8, bool)}


@pytest.mark.once
@pytest.mark.parametrize(
    ("made", "rule"),
    [
        (Greedy(), "at sparsity 0.2, 560 groups are left.*: 552"),
        (Reviving(), "560 groups are left.*: 700"),
        (Moving(), "`rearrange` keeps as many groups in each layer"),
        (Renaming(), "`fold` gives the masks that `left` gives"),
        (Idle(), "nothing is idle where nothing was pruned"),
    ],
)
def test_a_grouping_that_breaks_a_rule(made, rule):
    with pytest.raises(AssertionError, match=f"Broken rule.*{rule}"):
        testing.check_grouping(Kind(lambda model, masks: made))


class Forgetful(Global):
    def leaving_out(self, patterns):
        return Global(["output"])


class Backwards(Global):
    def total_sparsity(self, sparsity, masks):
        return 1 - sparsity


@pytest.mark.once
@pytest.mark.parametrize(
    ("allocate", "rule"),
    [
        (Forgetful(), "names in `exclude` what is left out"),
        (Backwards(), "`total_sparsity` is 0 at 0"),
    ],
)
def test_an_allocation_whose_protocol_breaks_a_rule(allocate, rule):
    with pytest.raises(AssertionError, match=f"Broken rule.*{rule}"):
        testing.check_allocation(allocate)


def chance(ticket, snapshot):
    weights = {n: np.random.normal(size=a.shape) for n, a in ticket.weights.items()}
    return dataclasses.replace(ticket, weights=weights)


def nothing_left(ticket, snapshot):
    masks = {n: np.zeros(m.shape) for n, m in ticket.masks.items()}
    return dataclasses.replace(ticket, masks=Masks(masks))


def not_a_number(ticket, snapshot):
    weights = {n: np.full(a.shape, np.nan) for n, a in ticket.weights.items()}
    return dataclasses.replace(ticket, weights=weights)


def spoils_the_ticket(ticket, snapshot):
    ticket.weights["conv/kernel"][...] = 0
    return ticket


@pytest.mark.once
@pytest.mark.parametrize(
    ("control", "rule"),
    [
        (lambda t, s: t.masks, "makes a `Ticket`"),
        (lambda t, s: dataclasses.replace(t, weights={}), "weights have the names"),
        (nothing_left, "as many weights as the ticket"),
        (lambda t, s: dataclasses.replace(t, steps=9), "trained as.*steps=90.*: 9"),
        (not_a_number, "are finite"),
        (spoils_the_ticket, "neither the ticket nor the snapshot"),
        (chance, "snapshot.rng"),
    ],
)
def test_a_control_that_breaks_a_rule(control, rule):
    with pytest.raises(AssertionError, match=f"Broken rule.*{rule}"):
        testing.check_control(control)


@pytest.mark.once
@pytest.mark.parametrize(
    ("schedule", "rule"),
    [
        (lambda rate=0.2, levels=15: [0.5], "is a `schedules.Schedule`"),
        (lambda rate: Schedule((rate,)), "a default"),
        (lambda rate=1, levels=1: Schedule((0.5, 0.2)), "between the one before"),
        (lambda rate=0.1, levels=1: Schedule((0.1, 0.2)), "at most as many levels"),
    ],
)
def test_a_schedule_that_breaks_a_rule(schedule, rule):
    with pytest.raises(AssertionError, match=f"Broken rule.*{rule}"):
        testing.check_schedule(schedule)


def test_a_layer_without_a_masked_form_breaks_a_rule():
    class Other(keras.layers.Dense):
        pass

    with pytest.raises(AssertionError, match="Broken rule: `mask_model` masks"):
        testing.check_masked_layer(lambda: Other(2), batch(3))


def test_a_masked_layer_whose_weights_come_back_breaks_a_rule(monkeypatch):
    """As where momentum moves what is pruned, and nothing undoes it."""
    from keras_lottery.testing import masked_layer

    def revived(variable):
        return np.ones(variable.shape)

    monkeypatch.setattr(masked_layer, "read", revived)
    with pytest.raises(AssertionError, match="stays exactly zero in training"):
        testing.check_masked_layer(lambda: layers.Dense(3), batch(5))


def test_a_layer_that_does_not_read_its_mask_breaks_a_rule():
    @keras.saving.register_keras_serializable("contracts")
    class Deaf(layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], 3), name="kernel")

        def call(self, x):
            return x @ self._trainable_variables[0]

    masked = register_masked(Deaf)
    try:
        with pytest.raises(AssertionError, match="what is behind the mask"):
            testing.check_masked_layer(Deaf, batch(5))
    finally:
        del MASKED_LAYERS[Deaf], ORDINARY_LAYERS[masked]
