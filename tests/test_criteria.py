import numpy as np
import pytest

from keras_lottery import criteria
from keras_lottery.masks import Masks
from keras_lottery.ticket import Snapshot

FINAL = {
    "a/kernel": np.array([[-3.0, 2.0], [0.5, -0.1]]),
    "a/bias": np.ones(2),
    "b/kernel": np.array([1.0, -4.0]),
}


def snapshot(seed=0):
    masks = Masks.dense({"a/kernel": (2, 2), "b/kernel": (2,)})
    other = {name: np.zeros(array.shape) for name, array in FINAL.items()}
    rng = np.random.default_rng(seed)
    return Snapshot(
        masks, FINAL, initial=other, rewind_point=other, rng=rng, model=None
    )


@pytest.mark.parametrize("name", criteria.CRITERIA)
def test_every_criterion_scores_the_prunable_weights(name):
    scores = criteria.get(name)(snapshot())
    assert {n: np.shape(s) for n, s in scores.items()} == {
        n: mask.shape for n, mask in snapshot().masks.items()
    }
    again = criteria.get(name)(snapshot())
    for score, same in zip(scores.values(), again.values(), strict=True):
        assert np.isfinite(score).all()
        np.testing.assert_array_equal(score, same)


def test_magnitude_is_that_of_the_final_weights():
    scores = criteria.magnitude(snapshot())
    np.testing.assert_array_equal(scores["a/kernel"], [[3, 2], [0.5, 0.1]])
    np.testing.assert_array_equal(scores["b/kernel"], [1, 4])


def test_random_follows_the_snapshots_generator():
    one, other = (criteria.random(snapshot(seed))["a/kernel"] for seed in (0, 1))
    assert not np.isclose(one, other).any()
    assert len(np.unique(one)) == 4


def test_get():
    assert criteria.get("large_final") is criteria.get("magnitude")
    assert criteria.get(len) is len
    with pytest.raises(ValueError, match=r"\['large_final', .*criterion='typo'"):
        criteria.get("typo")
