import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_lottery.masks import Masks

pytestmark = pytest.mark.once

MASK_ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=5),
    hnp.arrays(bool, hnp.array_shapes(max_dims=4, max_side=4)),
    min_size=1,
    max_size=4,
)


@given(MASK_ARRAYS)
def test_counts(arrays):
    masks = Masks(arrays)
    every = np.concatenate([array.ravel() for array in arrays.values()])
    assert (masks.kept, masks.size) == (every.sum(), every.size)
    assert masks.density == pytest.approx(every.mean())
    assert masks.density + masks.sparsity == pytest.approx(1)
    assert list(masks) == list(arrays)
    assert len(masks) == len(arrays)


@given(MASK_ARRAYS)
def test_equality_is_that_of_the_arrays(arrays):
    masks = Masks(arrays)
    assert masks == Masks(arrays) == arrays
    name = next(iter(arrays))
    assert masks != arrays | {name: ~arrays[name]}
    assert masks != arrays | {name + "x": arrays[name]}
    assert masks != "masks"


def test_immutable():
    array = np.ones((2, 3), bool)
    masks = Masks({"kernel": array})
    array[:] = False
    assert masks.kept == 6
    with pytest.raises(ValueError, match="read-only"):
        masks["kernel"][0] = False
    with pytest.raises(TypeError):
        masks["kernel"] = array
    with pytest.raises(TypeError, match="unhashable"):
        hash(masks)


@pytest.mark.parametrize("dtype", [bool, int, "float32", "uint8"])
def test_zeros_and_ones_of_any_type(dtype):
    masks = Masks({"kernel": np.array([[1, 0], [1, 1]], dtype)})
    assert masks["kernel"].dtype == bool
    assert masks.kept == 3


@pytest.mark.parametrize("value", [0.5, 2, -1, np.nan])
def test_other_values_are_refused(value):
    with pytest.raises(ValueError, match="zeros and ones, for `kernel`"):
        Masks({"kernel": [1, value]})


def test_dense_keeps_everything():
    masks = Masks.dense({"a": (2, 3), "b": (4,)})
    assert (masks.density, masks.size) == (1, 10)
    assert masks["a"].shape == (2, 3)


def test_repr_tells_what_is_left():
    masks = Masks({"a": np.arange(2000) < 1234, "b": [True]})
    assert repr(masks) == "<Masks: 1,235 of 2,001 weights in 2 tensors>"
