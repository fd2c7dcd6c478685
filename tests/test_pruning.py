import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models_zoo import (
    ZOO,
    arrays,
    assert_equal,
    compiled,
    inputs,
    mlp,
    pruned,
    scramble,
)

from keras_lottery.allocation import Layerwise
from keras_lottery.layers import get_masks, get_state, mask_model, set_masks
from keras_lottery.pruning import prune

MODEL = mask_model(scramble(mlp()))
STATE = get_state(MODEL)
DENSE = {name: np.ones(mask.shape) for name, mask in get_masks(MODEL).items()}


@given(
    sparsities=st.lists(st.floats(0, 0.98), min_size=1, max_size=3).map(sorted),
    criterion=st.sampled_from(["magnitude", "random"]),
    allocation=st.sampled_from(["global", "layerwise", "uniform"]),
    seed=st.integers(0, 3),
)
def test_sparsity_is_exact_and_nothing_is_revived(
    sparsities, criterion, allocation, seed
):
    set_masks(MODEL, DENSE)
    scramble(MODEL, seed)
    dense, before = get_state(MODEL), get_masks(MODEL)
    for sparsity in sparsities:
        prune(MODEL, sparsity, criterion, allocation, seed=seed)
        masks = get_masks(MODEL)
        assert masks.kept == round(36 * (1 - sparsity))
        assert not any((masks[name] & ~before[name]).any() for name in masks)
        before = masks
    for name, array in get_state(MODEL).items():
        np.testing.assert_array_equal(array, dense[name] * masks.get(name, 1))


@pytest.mark.parametrize("build", ZOO.values(), ids=list(ZOO))
def test_magnitude_prunes_the_smallest_weights_of_every_model(build):
    model = mask_model(scramble(build()))
    state = get_state(model)
    prune(model, 0.6)
    masks = get_masks(model)
    left = np.concatenate([abs(state[name][mask]) for name, mask in masks.items()])
    gone = np.concatenate([abs(state[name][~mask]) for name, mask in masks.items()])
    assert left.min() > gone.max()
    assert len(left) == round(masks.size * 0.4)


def test_any_function_of_a_snapshot_is_a_criterion():
    model = pruned(compiled(scramble(mlp())), 0.25)
    data = inputs(model, 8), np.ones((8, 2))
    masks, state, seen = get_masks(model), get_state(model), []

    def saliency(snapshot):
        """Weight times gradient, as of Molchanov et al. 2017."""
        gradients = snapshot.gradients()
        scores = {n: abs(snapshot.final[n] * gradients[n]) for n in snapshot.masks}
        seen.append((snapshot, scores))
        return scores

    prune(model, 0.5, saliency, data=data)
    ((snapshot, scores),) = seen
    assert snapshot.masks == masks
    assert snapshot.model is model
    for held in (snapshot.final, snapshot.initial, snapshot.rewind_point):
        assert_equal(held.values(), state.values())
    left = [scores[name][mask] for name, mask in get_masks(model).items()]
    gone = [scores[n][masks[n] & ~mask] for n, mask in get_masks(model).items()]
    assert np.concatenate(left).min() >= np.concatenate(gone).max()
    assert get_masks(model).kept == 18


def test_criteria_that_need_data_say_so():
    model = pruned(compiled(mlp()))
    with pytest.raises(ValueError, match=r"Pass `data=\(x, y\)`"):
        prune(model, 0.7, lambda snapshot: snapshot.gradients())


def test_seed_of_random_numbers():
    masks = []
    for seed in (1, 1, 2):
        set_masks(MODEL, DENSE)
        prune(MODEL, 0.5, "random", seed=seed)
        masks.append(get_masks(MODEL))
    assert masks[0] == masks[1] != masks[2]


def test_allocations_with_arguments():
    model = mask_model(scramble(mlp()))
    prune(model, 0.5, allocation=Layerwise(exclude=["dense_1"]))
    assert [int(mask.sum()) for mask in get_masks(model).values()] == [6, 12]


@pytest.mark.parametrize("build", [*ZOO.values(), mlp], ids=[*ZOO, "mlp"])
@pytest.mark.parametrize("granularity", ["block_1x4", (3, 2), "2:4"])
def test_groups_of_every_model(build, granularity):
    model = mask_model(scramble(build()))
    prune(model, 0.4, granularity=granularity)
    masks = get_masks(model)
    assert masks.kept == pytest.approx(masks.size * 0.6, abs=3.5)
    inputs, outputs = (3, 2) if granularity == (3, 2) else (4, 1)
    for mask in masks.values():
        matrix = mask.reshape(-1, mask.shape[-1])
        for i in range(0, matrix.shape[0], inputs):
            for j in range(0, matrix.shape[1], outputs):
                block = matrix[i : i + inputs, j : j + outputs]
                least = (block.size + 1) // 2 if granularity == "2:4" else 0
                assert block.sum() in (least, block.size)


def nan_scores(snapshot):
    return {name: np.full(mask.shape, np.nan) for name, mask in snapshot.masks.items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"sparsity": 0.2}, "pruned weights pruned"),
        ({"sparsity": 0.9, "criterion": "typo"}, "criterion='typo'"),
        ({"sparsity": 0.9, "criterion": nan_scores}, "NaN"),
        ({"sparsity": 0.9, "allocation": "typo"}, "allocation='typo'"),
        ({"sparsity": 0.9, "granularity": "typo"}, "granularity='typo'"),
    ],
)
def test_wrong_arguments_change_nothing(arguments, message):
    model = pruned(scramble(mlp()))
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        prune(model, **arguments)
    assert_equal(arrays(model), before)


def test_an_unmasked_model_is_refused():
    with pytest.raises(ValueError, match="Call `mask_model"):
        prune(mlp(), 0.5)


def test_weights_that_are_not_numbers_are_refused():
    model = mask_model(scramble(mlp()))
    model.layers[0].weight_variable("kernel").assign(np.full((4, 6), np.nan))
    with pytest.raises(ValueError, match="`dense/kernel` hold NaN"):
        prune(model, 0.5)
    assert get_masks(model).sparsity == 0
