"""Bugs that other libraries shipped, each with a test that would have found it here."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_lottery import allocation
from keras_lottery.in_fit.callbacks import GradualPruning
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_sparsity,
    get_state,
    mask_model,
    named_variables,
    set_state,
    strip_masks,
)
from keras_lottery.masks import Masks
from keras_lottery.pruning import prune, prune_snapshot
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.rewind import Span, from_rewind_point
from tests.models_zoo import (
    ZOO,
    arrays,
    assert_equal,
    cnn,
    compiled,
    fit,
    mlp,
    pruned,
    pruned_weights,
    scramble,
)

# In models so small.
pytestmark = pytest.mark.filterwarnings("ignore:No weights are left")


def test_negative_weights_are_trained_and_kept_like_positive_ones():
    """rahulvigneswaran's Lottery-Ticket-Hypothesis, issues 5, 7 and 31.

    Gradients were frozen where `weight < EPS`, which is where weights are negative.
    """
    model = compiled(keras.Sequential([keras.Input((4,)), layers.Dense(6)]), "sgd")
    model = mask_model(scramble(model))
    before = get_state(model)["dense/kernel"]
    prune(model, 0.5)
    mask = get_masks(model)["dense/kernel"]
    assert (before[mask] < 0).any() and (before[mask] > 0).any()
    np.testing.assert_array_equal(mask, abs(before) > np.median(abs(before)))
    fit(model)
    assert (get_state(model)["dense/kernel"] != before)[mask].all()


def test_saved_initial_weights_are_no_alias_of_the_trained_ones():
    """BERT-Tickets, issue 19: rewinding to them did nothing."""
    model = pruned(compiled(scramble(cnn())))
    initial = get_state(model)
    copies = {name: array.copy() for name, array in initial.items()}
    # On JAX, a training takes the buffers that it is given.
    set_state(model, initial)
    fit(model)
    assert_equal(initial.values(), copies.values())
    assert any((get_state(model)[name] != initial[name]).any() for name in initial)
    set_state(model, initial)
    assert_equal(get_state(model).values(), copies.values())


def test_rewinding_takes_all_variables_back():
    """Synaptic-Flow: never rewound; mended, it still skips BatchNorm's statistics."""
    model = mask_model(compiled(scramble(cnn())))
    start = get_state(model)
    fit(model)
    final, masks = get_state(model), get_masks(model)
    moved = {name for name in start if not np.array_equal(start[name], final[name])}
    assert moved == set(start)
    rng = np.random.default_rng(0)
    snapshot = Snapshot(masks, final, start, start, rng, model)
    masks, _ = prune_snapshot(snapshot, 0.5)
    ticket = from_rewind_point(snapshot, masks, Span(0, 4))
    set_state(model, ticket.weights)
    assert_equal(get_state(model).values(), start.values())


class EveryBatch(keras.callbacks.Callback):
    """Notes how many pruned weights are not zero after each batch."""

    def __init__(self):
        super().__init__()
        self.alive = []

    def on_train_batch_end(self, batch, logs=None):
        get_state(self.model)  # on JAX, brings the variables up to date
        self.alive.append(np.count_nonzero(pruned_weights(self.model)))


def test_masks_hold_within_an_epoch():
    """lottery-ticket-pruner applied masks at the ends of epochs only."""
    watch = EveryBatch()
    model = pruned(compiled(scramble(mlp()), keras.optimizers.SGD(0.1, momentum=0.9)))
    fit(model, batches=5, callbacks=[watch])
    assert watch.alive == [0] * 5


def test_momentum_does_not_revive_what_is_pruned():
    """Many: slots that were filled before the mask was set moved the weight on."""
    model = compiled(scramble(mlp()), keras.optimizers.SGD(0.1, momentum=0.9))
    model = mask_model(model)
    fit(model)
    prune(model, 0.5)
    fit(model)
    assert not pruned_weights(model).any()


@pytest.mark.once
@pytest.mark.parametrize("name", allocation.ALLOCATIONS)
def test_weights_that_move_behind_a_mask_are_not_ranked(name):
    """AdamW moves kernels that are masked, and the large ones were picked again."""
    masks = Masks({"a": np.arange(20) % 2, "b": np.arange(20) % 2})
    scores = {key: np.where(mask, 1.0, 100.0) for key, mask in masks.items()}
    new = allocation.get(name)(scores, masks, 0.75)
    assert new.kept == 10
    assert not any((new[key] & ~masks[key]).any() for key in masks)


@pytest.mark.once
@pytest.mark.parametrize("convert", [mask_model, lambda m: prune(m, 0.9)])
def test_nothing_to_prune_is_an_error(convert):
    """lottery-ticket-pruner on Keras 3: said 90 % pruned, with 0 % zeros."""
    model = keras.Sequential([keras.Input((4,)), layers.LayerNormalization()])
    with pytest.raises(ValueError, match=r"No layer to prune|a masked model"):
        convert(model)
    with pytest.raises(ValueError, match="needs a masked model"):
        fit(compiled(mlp()), callbacks=[GradualPruning(0.9, 0, 1)])


@pytest.mark.once
@pytest.mark.parametrize("name", allocation.ALLOCATIONS)
@pytest.mark.parametrize("keep", [1, 5, 6, 35, 36])
def test_exactly_k_are_kept_though_all_are_equal(name, keep):
    """Thresholds pruned k + 1 weights, and all of them where values tie."""
    model = mask_model(mlp(kernel_initializer="ones"))
    prune(model, 1 - keep / 36, allocation=name)
    masks = get_masks(model)
    assert masks.kept == keep
    for mask in masks.values():
        assert mask.ravel().tolist() == sorted(mask.ravel(), reverse=True)


@pytest.mark.once
@pytest.mark.parametrize("name", allocation.ALLOCATIONS)
def test_what_is_pruned_stays_pruned_at_every_level(name):
    """Masks found anew at each level let a pruned weight live again."""
    model = mask_model(mlp())
    dead = {key: np.zeros(mask.shape, bool) for key, mask in get_masks(model).items()}
    for level in range(1, 9):
        scramble(model, seed=level)  # raw weights, behind the masks too
        prune(model, 1 - 0.8**level, allocation=name)
        for key, mask in get_masks(model).items():
            assert not (mask & dead[key]).any()
            dead[key] = ~mask
    assert get_sparsity(model) == pytest.approx(1 - 0.8**8, abs=1 / 36)


@pytest.mark.once
@pytest.mark.parametrize("build", ZOO.values(), ids=list(ZOO))
def test_keys_do_not_depend_on_automatic_names(build):
    """`dense` was `dense_2` in the next build, and its stored mask was not found."""
    first, second = mask_model(build()), mask_model(build())
    assert get_masks(first).keys() == get_masks(second).keys()
    assert named_variables(first).keys() == named_variables(second).keys()
    set_state(second, get_state(first))
    assert_equal(get_state(second).values(), get_state(first).values())


@pytest.mark.parametrize("build", ZOO.values(), ids=list(ZOO))
def test_stripping_keeps_the_graph(build):
    """TFMOT, issue 1063: `strip_pruning` broke some graphs."""
    model = build()
    stripped = strip_masks(mask_model(model))
    assert_equal(arrays(stripped), arrays(model))
    assert [x.shape for x in stripped.inputs] == [x.shape for x in model.inputs]
    assert [y.shape for y in stripped.outputs] == [y.shape for y in model.outputs]


@pytest.mark.once
def test_no_setting_is_missing_from_a_config():
    """TFMOT's `get_config` drops `sparsity_m_by_n`."""
    callback = GradualPruning(0.5, 0, 1)
    settings = {name for name in vars(callback) if not name.startswith("_")}
    keras_own = set(vars(keras.callbacks.Callback()))
    # Data are not a setting.
    assert callback.get_config().keys() == settings - keras_own - {"data"}
