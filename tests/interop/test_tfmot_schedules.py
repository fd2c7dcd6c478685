"""GradualPruning and TFMOT's schedules: the same sparsities, the same weights."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery import GradualPruning
from keras_lottery.interop.tfmot import from_tfmot
from keras_lottery.keras_bridge.layers import get_masks

pytestmark = pytest.mark.tensorflow

STEPS = 120
shares = st.floats(0, 0.99)
frequencies = st.integers(1, 50)


@pytest.fixture(scope="module")
def prunable(tfmot):
    return tfmot.sparsity.keras


def theirs(schedule):
    """Whether TFMOT prunes at each step, and the sparsity it then asks for."""
    due, sparsity = schedule(np.arange(STEPS))
    return np.array(due), np.broadcast_to(np.array(sparsity), STEPS)


def ours(callback):
    steps = range(STEPS)
    due = np.array([callback.is_update_step(step) for step in steps])
    return due, np.array([callback.sparsity_at(step) for step in steps])


def in_force(due, sparsity):
    """The sparsity at each step: what the last pruning asked for."""
    last = np.maximum.accumulate(np.where(due, np.arange(STEPS), -1))
    return np.where(last < 0, 0.0, sparsity[last])


@st.composite
def spans(draw, least=1):
    begin = draw(st.integers(0, STEPS - 20))
    return begin, begin + draw(st.integers(least, 60))


@given(st.data())
def test_polynomial_decay(prunable, data):
    s_i, s_f = sorted(data.draw(st.tuples(shares, shares)))
    begin, end = data.draw(spans())
    power, frequency = (
        data.draw(st.sampled_from([0.5, 1, 2, 3])),
        data.draw(frequencies),
    )
    schedule = prunable.PolynomialDecay(s_i, s_f, begin, end, power, frequency)
    callback = GradualPruning(s_f, begin, end, frequency, s_i, power)
    (their_due, their_sparsity), (our_due, our_sparsity) = (
        theirs(schedule),
        ours(callback),
    )
    between = slice(begin, end + 1)
    # TFMOT computes in float32: near the end, a small base is raised to `power`.
    np.testing.assert_allclose(
        our_sparsity[between], their_sparsity[between], atol=3e-4 if power < 1 else 1e-6
    )
    if (end - begin) % frequency == 0:
        np.testing.assert_array_equal(our_due, their_due)
        np.testing.assert_allclose(
            in_force(our_due, our_sparsity),
            in_force(their_due, their_sparsity),
            atol=3e-4 if power < 1 else 1e-6,
        )
    elif end < STEPS:
        # TFMOT then stops below the final sparsity; here the last step is one more.
        assert np.flatnonzero(our_due != their_due).tolist() == [end]
        assert in_force(our_due, our_sparsity)[-1] == s_f
        assert in_force(their_due, their_sparsity)[-1] <= s_f + 1e-6


@given(shares, spans(least=0), st.booleans(), frequencies)
def test_constant_sparsity(prunable, sparsity, span, forever, frequency):
    """Pruned once, since masks do not come back: TFMOT prunes again and again."""
    begin, end = span
    schedule = prunable.ConstantSparsity(
        sparsity, begin, -1 if forever else end, frequency
    )
    np.testing.assert_allclose(
        in_force(*ours(GradualPruning(sparsity, begin, begin))),
        in_force(*theirs(schedule)),
        atol=1e-6,
    )


def test_what_tfmot_takes_and_does_otherwise(prunable):
    """docs/guides/from_tfmot.md says so."""
    flat = prunable.PolynomialDecay(0.2, 0.8, 0, 10, power=0, frequency=1)
    assert float(flat(5)[1]) == pytest.approx(0.2)  # here: 0.8 at once
    at_once = prunable.PolynomialDecay(0.2, 0.8, 10, 10, frequency=1)
    assert np.isnan(float(at_once(10)[1]))  # here: 0.8
    prunable.PolynomialDecay(0.8, 0.2, 0, 10)  # masks that come back
    with pytest.raises(ValueError, match=r"initial_sparsity=0.8"):
        GradualPruning(0.2, 0, 10, initial_sparsity=0.8)


class Counts(keras.callbacks.Callback):
    """Notes the masks of each batch."""

    def __init__(self, masks_of):
        super().__init__()
        self.masks_of, self.seen = masks_of, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.masks_of(self.model))


def their_masks(model):
    return {
        f"{wrapper.layer.name}/kernel": np.array(wrapper.pruning_vars[0][1], bool)
        for wrapper in model.layers
    }


def train(tk, prunable, schedule, callback, batches=14):
    """The masks that each batch of one training is done with, theirs and ours.

    The weights stay as they are, so that both choose among the same.
    """
    model = tk.Sequential(
        [
            tk.Input((8,)),
            tk.layers.Dense(10, "relu", name="hidden"),
            tk.layers.Dense(4, name="output"),
        ]
    )
    pruned = prunable.prune_low_magnitude(model, schedule)
    masked = from_tfmot(pruned)
    x, y = np.ones((batches, 8), "float32"), np.ones((batches, 4), "float32")
    pruned.compile(tk.optimizers.SGD(0.0), "mse")
    masked.compile(keras.optimizers.SGD(0.0), "mse")

    class Watch(tk.callbacks.Callback):
        seen = []  # noqa: RUF012

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(their_masks(self.model))

    watch, counts = Watch(), Counts(get_masks)
    pruned.fit(x, y, 1, verbose=0, callbacks=[prunable.UpdatePruningStep(), watch])
    masked.fit(x, y, 1, verbose=0, callbacks=[callback, counts])
    return watch.seen, counts.seen


def test_the_same_weights_are_pruned_at_the_same_batches(tk, prunable):
    """Counts that are whole numbers leave no room for rounding: 10 % a step."""
    their_masks, our_masks = train(
        tk,
        prunable,
        # The first batch is TFMOT's step 1; here the first update is number 0.
        prunable.PolynomialDecay(0.0, 0.8, 3, 11, power=1, frequency=2),
        GradualPruning(0.8, 2, 10, 2, power=1, allocation="uniform"),
    )
    assert [masks.sparsity for masks in our_masks] == pytest.approx(
        [0, 0, 0, 0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8, 0.8, 0.8]
    )
    for one, other in zip(their_masks, our_masks, strict=True):
        assert other == one


@pytest.mark.parametrize(("begin", "first"), [(0, 5), (3, 3), (1, 1)])
def test_constant_sparsity_in_training(tk, prunable, begin, first):
    """Of begin_step=0 TFMOT sees no more: its first pruning is that of step 5."""
    their_masks, our_masks = train(
        tk,
        prunable,
        prunable.ConstantSparsity(0.5, begin, frequency=5),
        GradualPruning(0.5, first - 1, first - 1, allocation="uniform"),
    )
    for one, other in zip(their_masks, our_masks, strict=True):
        assert other == one
    assert our_masks[-1].sparsity == 0.5
