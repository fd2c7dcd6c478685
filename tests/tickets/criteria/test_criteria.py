import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lottery import criteria
from keras_lottery.masks import Masks
from keras_lottery.tickets import Snapshot
from keras_lottery.tickets.allocation import largest
from keras_lottery.tickets.criteria import SignForm

pytestmark = pytest.mark.once

# The weights of one layer before and after training.
W_I = np.array([1.0, -2.0, 3.0, -4.0, 0.5], "float32")
W_F = np.array([-3.0, -2.5, 1.0, 5.0, 0.1], "float32")

# The others look at the model, and most of them at data.
OF_MODELS = tuple(criteria._OF_MODELS)
OF_WEIGHTS = [name for name in criteria.CRITERIA if name not in OF_MODELS]


def snapshot(w_i=W_I, w_f=W_F, alive=None, seed=0):
    """One layer's weights, and a bias, which is not to be scored."""
    initial = {"a/kernel": w_i, "a/bias": np.zeros(2)}
    final = {"a/kernel": w_f, "a/bias": np.ones(2)}
    masks = Masks({"a/kernel": np.ones(w_i.shape) if alive is None else alive})
    rewound = {name: np.full(array.shape, 9.0) for name, array in initial.items()}
    rng = np.random.default_rng(seed)
    return Snapshot(masks, final, initial, rewound, rng, shared_model=None)


def scores(name, *args, **kwargs):
    return criteria.get(name)(snapshot(*args, **kwargs))["a/kernel"]


def order(name, keep, **kwargs):
    made = snapshot(**kwargs)
    chosen = largest(criteria.get(name)(made), made.masks, keep)
    return np.flatnonzero(chosen["a/kernel"]).tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", [3, 2.5, 1, 5, 0.1]),
        ("large_final", [3, 2.5, 1, 5, 0.1]),
        ("small_final", [-3, -2.5, -1, -5, -0.1]),
        ("large_init", [1, 2, 3, 4, 0.5]),
        ("small_init", [-1, -2, -3, -4, -0.5]),
        ("magnitude_increase", [2, 0.5, -2, 1, -0.4]),
        ("distance", [4, 0.5, 2, 9, 0.4]),
        # Percentiles of |w_i|: 2 3 4 5 1 fifths; of |w_f|: 4 3 2 5 1 fifths.
        ("large_init_large_final", [0.4, 0.6, 0.4, 1, 0.2]),
        ("small_init_small_final", [-0.8, -0.6, -0.8, -1, -0.2]),
    ],
)
def test_scores_are_those_of_the_paper(name, expected):
    np.testing.assert_allclose(scores(name), expected, rtol=1e-6)


@given(
    weights=hnp.arrays("float64", (2, 30), elements=st.floats(0, 9), unique=True),
    keep=st.integers(1, 29),
)
def test_large_init_large_final_aligns_percentiles(weights, keep):
    """What is kept is large on both sides, each beyond the same percentile."""
    w_i, w_f = weights
    for name, sign in (("large_init_large_final", 1), ("small_init_small_final", -1)):
        ranks = [np.argsort(np.argsort(sign * np.abs(w))) for w in (w_i, w_f)]
        least = np.minimum(*ranks)
        kept = order(name, keep, w_i=w_i, w_f=w_f)
        dropped = np.setdiff1d(np.arange(30), kept)
        assert least[kept].min() >= least[dropped].max()


@pytest.mark.parametrize(
    ("name", "first"),
    [
        # Weights 1, 2 and 4 kept their signs; 0 and 3 did not.
        ("large_final_same_sign", [1, 2, 4]),
        ("large_final_diff_sign", [3, 0]),
        ("small_final_same_sign", [4, 2, 1]),
        ("small_final_diff_sign", [0, 3]),
        ("magnitude_increase_same_sign", [1, 4, 2]),
        ("magnitude_increase_diff_sign", [0, 3]),
        ("distance_diff_sign", [3, 0]),
    ],
)
def test_the_form_comes_first_and_is_ranked_by_its_criterion(name, first):
    for keep in range(1, len(first) + 1):
        assert order(name, keep) == sorted(first[:keep])
    everyone = {tuple(order(name, len(first) + 1, seed=seed)) for seed in range(20)}
    assert len(everyone) == 5 - len(first), "the rest is random"


def test_a_sign_that_training_gave_to_zero_is_another():
    w_i, w_f = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])
    assert order("large_init_same_sign", 1, w_i=w_i, w_f=w_f) == [0]
    assert order("large_init_diff_sign", 2, w_i=w_i, w_f=w_f) == [1, 2]


def test_every_criterion_of_zhou_et_al_has_both_forms():
    forms = [n for n in criteria.CRITERIA if n.endswith("_sign")]
    plain = {n.removesuffix("_same_sign").removesuffix("_diff_sign") for n in forms}
    assert plain == {*OF_WEIGHTS} - {"magnitude", "random", *forms}
    assert len(forms) == 2 * len(plain) == 16
    for name in plain:
        score = criteria.get(name).score
        assert criteria.get(f"{name}_same_sign").score == SignForm(score, True)
        assert criteria.get(f"{name}_diff_sign").score == SignForm(score, False)


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_only_weights_that_are_left_count(name):
    """Percentiles are among them, and what the others' values are does not matter."""
    alive = np.array([True, False, True, True, False])
    one, other = (
        scores(name, *(np.where(alive, w, value) for w in (W_I, W_F)), alive)
        for value in (0, 99)
    )
    np.testing.assert_array_equal(one[alive], other[alive])


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_what_training_did_needs_training(name):
    needs = name not in ("magnitude", "large_final", "small_final", "random")
    if needs:
        with pytest.raises(ValueError, match="before and after training"):
            scores(name, W_I, W_I.copy())
    else:
        assert len(np.unique(scores(name, W_I, W_I.copy()))) == 5


def test_random_follows_the_snapshots_generator():
    one, other = (scores("random", seed=seed) for seed in (0, 1))
    assert not np.isclose(one, other).any()
    assert len(np.unique(one)) == 5


@pytest.mark.parametrize("name", OF_MODELS)
def test_criteria_of_models_say_what_they_lack(name):
    """As where masks are to settle while weights are all there is."""
    with pytest.raises(ValueError, match=r"mask_epochs='auto'|compiled with one of"):
        scores(name)


def test_get():
    assert criteria.get("large_final").score is criteria.get("magnitude").score
    assert criteria.get(len).score is len
    with pytest.raises(ValueError, match=r"\['admm', .*criterion='typo'"):
        criteria.get("typo")
