import warnings

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from keras_lottery import criteria
from keras_lottery.keras_bridge.gradients import gradients
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    mask_model,
    set_masks,
    set_state,
)
from keras_lottery.pruning import prune
from keras_lottery.tickets.allocation import Global, Layerwise, Uniform
from tests.models_zoo import (
    ZOO,
    arrays,
    as_array,
    assert_equal,
    compiled,
    inputs,
    mlp,
    pruned,
    scramble,
)

# In models so small.
pytestmark = pytest.mark.filterwarnings("ignore:No weights are left")

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
    prune(model, 0.6, allocation=Global(floor=0))
    masks = get_masks(model)
    left = np.concatenate([abs(state[name][mask]) for name, mask in masks.items()])
    gone = np.concatenate([abs(state[name][~mask]) for name, mask in masks.items()])
    assert left.min() > gone.max()
    assert len(left) == round(masks.size * 0.4)


@pytest.mark.once
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
    assert snapshot.shared_model is model
    for held in (snapshot.final, snapshot.initial, snapshot.rewind_point):
        assert_equal(held.values(), state.values())
    left = [scores[name][mask] for name, mask in get_masks(model).items()]
    gone = [scores[n][masks[n] & ~mask] for n, mask in get_masks(model).items()]
    assert np.concatenate(left).min() >= np.concatenate(gone).max()
    assert get_masks(model).kept == 18


def in_rounds(scores, rounds):
    """A criterion that notes what it is asked about."""
    seen = []

    def criterion(snapshot):
        seen.append(snapshot)
        return scores(snapshot)

    return criteria.in_rounds(rounds)(criterion), seen


@pytest.mark.once
@given(
    sparsity=st.floats(0.3, 0.95),
    rounds=st.integers(1, 6),
    own=st.booleans(),
    allocation=st.sampled_from(["global", "uniform"]),
)
def test_rounds_prune_the_same_share_each_and_see_what_is_left(
    sparsity, rounds, own, allocation
):
    set_masks(MODEL, DENSE)
    scramble(MODEL)
    set_masks(
        MODEL, {n: np.arange(m.size).reshape(m.shape) != 1 for n, m in DENSE.items()}
    )
    state, before = get_state(MODEL), get_masks(MODEL)
    criterion, seen = in_rounds(criteria.get("magnitude"), rounds if own else 7)
    prune(MODEL, sparsity, criterion, allocation, rounds=None if own else rounds)
    assert get_masks(MODEL).kept == round(36 * (1 - sparsity))
    assert len(seen) == rounds
    for k, snapshot in enumerate(seen):
        density = before.density * ((1 - sparsity) / before.density) ** (k / rounds)
        assert snapshot.masks.kept == round(36 * density)
        for name, array in snapshot.final.items():
            np.testing.assert_array_equal(
                array, state[name] * snapshot.masks.get(name, 1)
            )
        assert_equal(snapshot.initial.values(), state.values())


@pytest.mark.once
def test_rounds_of_equal_scores_are_one_round():
    masks = []
    for rounds in (1, 5):
        set_masks(MODEL, DENSE)
        scramble(MODEL)
        prune(MODEL, 0.8, rounds=rounds)
        masks.append(get_masks(MODEL))
    assert masks[0] == masks[1]


def test_gradients_of_a_round_are_those_of_the_network_that_is_left():
    model = mask_model(compiled(scramble(mlp())))
    data = inputs(model, 8), np.ones((8, 2), "float32")
    rounds = []

    def criterion(snapshot):
        rounds.append((snapshot, snapshot.gradients()))
        return rounds[-1][1]

    prune(model, 0.8, criterion, data=data, rounds=3)
    assert len(rounds) == 3
    for snapshot, found in rounds:
        alone = mask_model(compiled(mlp()))
        set_state(alone, snapshot.final, snapshot.masks)
        expected = gradients(alone, *data)
        for name, gradient in found.items():
            np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.once
def test_rounds_of_blocks():
    model = mask_model(scramble(mlp()))
    prune(model, 0.7, granularity=(2, 1), rounds=8)
    masks = get_masks(model)
    assert abs(masks.kept - 11) <= 1
    for mask in masks.values():
        np.testing.assert_array_equal(mask[::2], mask[1::2])


def test_criteria_that_need_data_say_so():
    model = pruned(compiled(mlp()))
    with pytest.raises(ValueError, match=r"Pass `data=\(x, y\)`"):
        prune(model, 0.7, lambda snapshot: snapshot.gradients())


@pytest.mark.once
def test_seed_of_random_numbers():
    masks = []
    for seed in (1, 1, 2):
        set_masks(MODEL, DENSE)
        prune(MODEL, 0.5, "random", seed=seed)
        masks.append(get_masks(MODEL))
    assert masks[0] == masks[1] != masks[2]


@pytest.mark.once
def test_allocations_with_arguments():
    model = mask_model(scramble(mlp()))
    prune(model, 0.5, allocation=Layerwise(exclude=["dense_1"]))
    assert [int(mask.sum()) for mask in get_masks(model).values()] == [6, 12]


@pytest.mark.once
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


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"sparsity": "0.5"}, "sparsity='0.5'"),
        ({"sparsity": 0.2}, "pruned weights pruned"),
        ({"sparsity": 0.9, "criterion": "typo"}, "criterion='typo'"),
        ({"sparsity": 0.9, "criterion": nan_scores}, "NaN"),
        ({"sparsity": 0.9, "allocation": "typo"}, "allocation='typo'"),
        ({"sparsity": 0.9, "rounds": 0}, "rounds=0"),
        ({"sparsity": 1.2, "rounds": 3}, "sparsity=1.2"),
        ({"sparsity": 0.2, "rounds": 3}, "sparsity=0.2"),
        ({"sparsity": 0.9, "granularity": "typo"}, "granularity='typo'"),
    ],
)
def test_wrong_arguments_change_nothing(arguments, message):
    model = pruned(scramble(mlp()))
    before = arrays(model)
    with pytest.raises(ValueError, match=message):
        prune(model, **arguments)
    assert_equal(arrays(model), before)


@pytest.mark.once
def test_scores_that_say_nothing_are_refused():
    """Behind a head of zeros, no weight moves the loss."""
    model = mask_model(compiled(scramble(mlp())))
    model.layers[-1].weight_variable("kernel").assign(np.zeros((6, 2)))
    before = arrays(model)
    data = inputs(model, 8), np.ones((8, 2))
    with pytest.raises(ValueError, match=r"only zeros, from criterion='snip'\. All"):
        prune(model, 0.5, "snip", data=data)
    assert_equal(arrays(model), before)
    prune(model, 0.0, "snip", data=data)
    prune(model, 0.5)


@pytest.mark.once
def test_layers_that_lose_all_weights_are_named():
    def scores(snapshot):
        # The second layer goes first.
        return {n: np.full(m.shape, len(m) == 4) for n, m in snapshot.masks.items()}

    model = mask_model(scramble(mlp()))
    whole = Global(floor=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, 0.25, scores, whole)
    with pytest.warns(UserWarning, match=r"left in \['dense_1/kernel'\] at .*=0.5"):
        prune(model, 0.5, scores, whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(model, 0.75, scores, whole)


@pytest.mark.once
def test_a_layer_that_falls_below_one_percent_is_named_once_and_by_default_none_does():
    def scores(snapshot):
        return {n: np.arange(m.size).reshape(m.shape) + 1e6 * ("wide" not in n)
                for n, m in snapshot.masks.items()}  # fmt: skip

    def model():
        wide, narrow = layers.Dense(60, name="wide"), layers.Dense(30, name="narrow")
        return mask_model(keras.Sequential([keras.Input((50,)), wide, narrow]))

    for allocation, sparsity, thin in [
        ("global", 0.8, False),
        (Global(floor=0.05), 0.7, False),
        (Global(floor=0.02), 0.7, True),
        (Global(floor=0), 0.624, True),
    ]:
        new = model()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            prune(new, sparsity, scores, allocation)
            prune(new, sparsity + 0.01, scores, allocation)
        texts = [str(w.message) for w in seen]
        few = [text for text in texts if "Few weights are left in {'wide/ker" in text]
        assert len(few) == thin and all("exclude=" in text for text in texts)


@pytest.mark.once
def test_an_unmasked_model_is_refused():
    with pytest.raises(ValueError, match="Call `mask_model"):
        prune(mlp(), 0.5)


@pytest.mark.once
def test_weights_that_are_not_numbers_are_refused():
    model = mask_model(scramble(mlp()))
    model.layers[0].weight_variable("kernel").assign(np.full((4, 6), np.nan))
    with pytest.raises(ValueError, match="`dense/kernel` hold NaN"):
        prune(model, 0.5)
    assert get_masks(model).sparsity == 0


@pytest.mark.once
def test_two_of_four_beside_layers_that_are_left_out_names_the_sparsity_it_comes_to():
    steps = layers.Dense(8, name="a"), layers.Dense(6, name="b")
    model = mask_model(keras.Sequential([keras.Input((8,)), *steps]))
    others = Uniform(exclude=["b"])
    with pytest.raises(ValueError, match=r"Pass sparsity=0\.2857"):
        prune(model, 0.5, allocation=others, granularity="2:4")
    prune(model, 0.2857, allocation=others, granularity="2:4")
    assert get_masks(model)["a/kernel"].mean() == 0.5


def conv_and_dense():
    """360 weights of a convolution and 120 of a dense layer."""
    steps = layers.Conv2D(10, (3, 3), name="conv"), layers.GlobalAveragePooling2D()
    head = layers.Dense(12, name="dense"), layers.Dense(3, name="head")
    return mask_model(keras.Sequential([keras.Input((5, 5, 4)), *steps, *head]))


def counts(model):
    return [int(mask.sum()) for mask in get_masks(model).values()]


BY_LAYER = {"conv": 0.5, "dense/*": 0.77}


@pytest.mark.once
def test_sparsity_and_granularity_of_each_layer_in_one_call():
    model = conv_and_dense()
    prune(model, BY_LAYER, granularity={"conv*": "2:4"})
    assert counts(model) == [180, 28, 36]  # 0.23 of 120 is 27.6; the head is whole
    conv, dense, _ = get_masks(model).values()
    assert (conv.reshape(-1, 4, 10).sum(axis=1) == 2).all()
    weights = np.abs(model.get_layer("dense").weight_variable("kernel").numpy())
    assert weights[dense].min() >= weights[~dense].max()
    # A layer that is sparser already stays as it is.
    prune(model, {"conv": 0.2, "dense": 0.8, "head": 0.5})
    assert counts(model) == [180, 24, 18]


@pytest.mark.once
def test_granularity_of_each_layer_with_one_ranking():
    model = conv_and_dense()
    prune(model, 0.6, granularity={"conv": "2:4", "*": (2, 1)})
    assert counts(model)[0] >= 180 and sum(counts(model)) == pytest.approx(206, abs=1)
    # A sparsity of each layer's that N:M cannot have is no other in silence.
    model = conv_and_dense()
    with pytest.raises(ValueError, match="a sparsity for each layer"):
        prune(model, 0.7, allocation="uniform", granularity={"conv": "2:4"})
    assert get_masks(model).sparsity == 0


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": {"typo*": 0.5}}, r"'typo\*' matches none"),
        ({"sparsity": {"conv": 1.5}}, r"sparsity\['conv'\]=1.5"),
        ({"sparsity": {}}, "sparsity={}"),
        ({"sparsity": BY_LAYER, "allocation": "erk"}, "allocation='erk'"),
        ({"granularity": {"typo*": "2:4"}}, r"'typo\*' matches none"),
        ({"granularity": {"conv": "filter"}}, r"granularity\['conv'\]='filter'"),
        ({"granularity": {}}, "granularity={}"),
    ],
)
def test_wrong_patterns_change_nothing(arguments, message):
    model = conv_and_dense()
    with pytest.raises(ValueError, match=message):
        prune(model, **({"sparsity": 0.5} | arguments))
    assert get_masks(model).sparsity == 0


class WeightNormalization(layers.Wrapper):
    """Divides an output's weights by their norm, as Salimans & Kingma do."""

    def call(self, x):
        kernel = self.layer.kernel
        norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(kernel), axis=0))
        return keras.ops.matmul(x, kernel / norm)


def test_a_wrapper_that_divides_by_the_norm_of_pruned_weights_is_named():
    def scores(snapshot):
        return {n: np.ones(m.shape) * np.arange(m.shape[-1])
                for n, m in snapshot.masks.items()}  # fmt: skip

    inner = layers.Dense(4, name="inner")
    for wrapper in (WeightNormalization, layers.SpectralNormalization):
        steps = wrapper(inner, name="outer"), layers.Dense(4)
        model = mask_model(keras.Sequential([keras.Input((6,)), *steps]))
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            prune(model, 0.2, scores, "uniform")
            prune(model, 0.3, scores, "uniform")
            prune(model, 0.4, scores, "uniform")
        texts = [str(each.message) for each in seen]
        nan = bool(np.isnan(as_array(model(np.ones((1, 6))))).any())
        assert nan == (wrapper is WeightNormalization)
        texts = [text for text in texts if "__array__" not in text]  # NumPy's own
        assert [t[:40] for t in texts] == [
            "The layer 'outer' (WeightNormalization) "
        ] * nan
        assert all("{'outer/inner/kernel': 1}" in text for text in texts)
