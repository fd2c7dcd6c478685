"""Criteria and rates of layers, chosen by validation."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_lottery as kl
from keras_lottery import files
from keras_lottery.automatic import auto_compress, choose_criteria
from keras_lottery.automatic.pruner import Pruner
from keras_lottery.automatic.rounds import Rounds
from keras_lottery.engines.data import Batches
from keras_lottery.in_fit.callbacks import ADMMPruning
from keras_lottery.keras_bridge.layers import get_masks, get_state
from keras_lottery.keras_bridge.layers.state import read
from keras_lottery.structured import multiply_adds, of_filters
from tests.models_zoo import EAGER

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def planted():
    """In `one` the units of large weights are of use, in `two` those of small ones."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "relu", name="one"),
            layers.Dense(8, "relu", name="two"),
            layers.Dense(2, name="out"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.01), "mse", **EAGER)
    one, two, out = (model.get_layer(name) for name in ("one", "two", "out"))
    large = np.repeat([1.0, 0.05], 4)
    one.kernel.assign(read(one.kernel) * large)
    two.kernel.assign(read(two.kernel) * large)
    out.kernel.assign(read(out.kernel) * (large < 1)[:, np.newaxis] * 20)
    return model


def inverse(filters):
    return -np.abs(filters.kernels[0]).sum(axis=1)


@pytest.fixture
def menu(monkeypatch):
    criteria = kl.filter_criteria.CRITERIA
    monkeypatch.setitem(criteria, "inverse", of_filters(inverse))
    return ["l1", "inverse"]


def test_each_layer_has_the_criterion_that_loses_least(menu):
    model = planted()
    data = X, model.predict(X, verbose=0)
    state = get_state(model)
    choice = choose_criteria(model, 0.4, None, data, criteria=menu)
    assert choice.criteria == {"one": "l1", "two": "inverse"}
    assert choice.loss < min(choice.alone.values())
    assert get_state(model).keys() == state.keys()
    for name, array in get_state(model).items():
        np.testing.assert_array_equal(array, state[name])
    masked = kl.mask_model(model)
    kl.prune(masked, choice.sparsity, choice, granularity="filter")
    assert multiply_adds(kl.compact(masked)) <= 0.4 * multiply_adds(model)
    loss = masked.evaluate(*data, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, choice.loss, rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("one, two", [(0.5, 0.5), (0.75, 0.0)])
def test_criteria_of_a_model_pruned_before_meet_the_target(one, two):
    model = planted()
    model.get_layer("out").kernel.assign(np.ones((8, 2)))
    masked = kl.mask_model(model)
    kl.prune(masked, {"one": one, "two": two}, granularity="filter")
    whole = multiply_adds(kl.compact(masked))
    data = X, model.predict(X, verbose=0)
    choice = choose_criteria(masked, 0.6, None, data, criteria=["l1", "l2"])
    kl.prune(masked, choice.sparsity, choice, granularity="filter")
    assert 0.3 * whole < multiply_adds(kl.compact(masked)) <= 0.6 * whole
    loss = masked.evaluate(*data, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, choice.loss, rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("of", ["multiply_adds", "parameters"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.83])
def test_candidates_meet_the_budget_and_no_more(of, share):
    model = planted()
    pruner = Pruner(model, (X, np.zeros((32, 2))))
    whole = pruner.cost(pruner.sizes)
    assert whole == (model.count_params(), multiply_adds(model))
    for rates in np.random.default_rng(1).random((5, 2)):
        counts = pruner.within(rates, share * getattr(whole, of), of)
        cost = getattr(pruner.cost(counts), of)
        assert cost <= share * getattr(whole, of)
        # A filter more in all layers would be too much.
        more = {n: min(count + 1, pruner.sizes[n]) for n, count in counts.items()}
        assert getattr(pruner.cost(more), of) > share * getattr(whole, of)
    with pytest.raises(ValueError, match="target that filters can meet"):
        pruner.within(rates, 3, of)


def compressed(model, directory=None, **how):
    data = X, model.predict(X, verbose=0)
    return auto_compress(
        model,
        0.4,
        data,
        data,
        **{"evaluations": 12, "epochs": 1, "rounds": 2, "verbose": 0, **how},
        directory=directory,
    )


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch):
    model = planted()
    whole = compressed(model)
    loss, asked = Pruner.loss, []

    def killed(self, masks):
        asked.append(masks)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return loss(self, masks)

    monkeypatch.setattr(Pruner, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        compressed(model, tmp_path)
    monkeypatch.setattr(Pruner, "loss", loss)
    found = compressed(model, tmp_path)
    assert found.losses == pytest.approx(whole.losses, rel=1e-5)
    assert found.filters == whole.filters
    assert found.evaluations == whole.evaluations
    assert multiply_adds(found.model) == found.after.multiply_adds
    assert found.after.multiply_adds <= 0.4 * found.before.multiply_adds
    assert get_masks(kl.mask_model(model)).sparsity == 0
    with pytest.raises(ValueError, match=r"other settings: seed: 0 there, 1 here"):
        compressed(model, tmp_path, seed=1)


@pytest.mark.once
def test_only_networks_that_were_fine_tuned_are_purified():
    model, how = planted(), {"rounds": 1, "evaluations": 3}
    model.get_layer("out").kernel.assign(np.ones((8, 2)))
    kept = compressed(model, epochs=0, purify=0, **how)
    assert compressed(model, epochs=0, purify=1e6, **how).filters == kept.filters
    tuned = compressed(model, purify=1e6, **how)
    assert tuned.after.multiply_adds < kept.after.multiply_adds


@pytest.mark.once
def test_multiply_adds_fall_until_a_file_is_fast_enough(monkeypatch):
    from keras_lottery.automatic.compress import _Work

    def latencies(self, models):
        return [1 + multiply_adds(model) for model in models]

    monkeypatch.setattr(_Work, "latencies", latencies)
    found = compressed(planted(), of="latency", rounds=1, purify=0)
    assert found.latency <= 0.4
    assert "latency" in str(found)


@pytest.mark.once
def test_the_share_that_timing_found_is_kept(tmp_path, monkeypatch):
    from keras_lottery.automatic.compress import _Work

    model, how = planted(), {"of": "latency", "rounds": 1, "evaluations": 3}
    fast = lambda self, models: [1.0, 0.1][: len(models)]  # noqa: E731
    monkeypatch.setattr(_Work, "latencies", fast)
    once = compressed(model, tmp_path, **how)
    # The try at the target and the round ask for the same candidates.
    other = compressed(model, rounds=1, evaluations=3)
    assert once.evaluations == other.evaluations
    slow = lambda self, models: [1.0, 1.0][: len(models)]  # noqa: E731
    monkeypatch.setattr(_Work, "latencies", slow)
    again = compressed(model, tmp_path, **how)
    assert again.filters == once.filters
    assert again.evaluations == once.evaluations


@pytest.mark.once
def test_a_stored_round_with_other_numbers_of_filters_is_refused(tmp_path):
    steps, model = Rounds(tmp_path, {}, 0), planted()
    steps.model("round 1", {"one": 4}, model, lambda: model)
    steps.model("round 1", {"one": 4}, model, lambda: pytest.fail("made twice"))
    with pytest.raises(ValueError, match=r"now finds {'one': 3}"):
        steps.model("round 1", {"one": 3}, model, lambda: model)


@pytest.mark.once
def test_two_compressions_do_not_share_a_directory(tmp_path):
    with (
        files.alone(tmp_path, "compression"),
        pytest.raises(BlockingIOError, match="Another compression is running"),
    ):
        compressed(planted(), tmp_path)


def test_admm_comes_before_pruning(monkeypatch):
    updates, trained = [], ADMMPruning.on_train_end

    def on_train_end(self, logs=None):
        assert get_masks(self.model).sparsity == 0
        trained(self, logs)
        updates.append(len(self.residuals))

    epochs, shuffle = [], Batches.set_epoch

    def set_epoch(self, epoch):
        epochs.append(epoch)
        shuffle(self, epoch)

    monkeypatch.setattr(Batches, "set_epoch", set_epoch)
    monkeypatch.setattr(ADMMPruning, "on_train_end", on_train_end)
    found = compressed(planted(), rounds=1, admm_epochs=3, evaluations=3, purify=0)
    assert updates == [3]
    assert epochs[-5:] == [0, 1, 2, 0, 0]  # Of ADMM, then one of fine-tuning.
    assert found.after.multiply_adds <= 0.4 * found.before.multiply_adds
