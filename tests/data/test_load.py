import numpy as np
import pytest

from keras_lottery import data

pytestmark = pytest.mark.once


def parts(splits):
    return {
        part: (getattr(splits, f"x_{part}"), getattr(splits, f"y_{part}"))
        for part in ("train", "validation", "test")
    }


class TestDigits:
    def test_arrays(self):
        digits = data.load("digits")
        assert (digits.name, digits.input_shape, digits.classes) == (
            "digits",
            (8, 8, 1),
            10,
        )
        sizes = {part: x.shape for part, (x, _) in parts(digits).items()}
        assert sizes == {
            "train": (897, 8, 8, 1),
            "validation": (540, 8, 8, 1),
            "test": (360, 8, 8, 1),
        }
        for x, y in parts(digits).values():
            assert x.dtype == np.float32
            assert y.dtype == np.int32
            assert (x.min(), x.max()) == (0, 1)

    def test_parts_are_disjoint_and_complete(self):
        from sklearn.datasets import load_digits

        ours = np.concatenate(
            [
                np.c_[x.reshape(-1, 64) * 16, y]
                for x, y in parts(data.load("digits")).values()
            ]
        )
        theirs = np.c_[load_digits(return_X_y=True)]
        np.testing.assert_array_equal(
            ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)]
        )

    def test_parts_have_the_same_shares_of_classes(self):
        for _, y in parts(data.load("digits")).values():
            np.testing.assert_allclose(np.bincount(y) / len(y), 0.1, atol=0.005)

    def test_seed_chooses_validation_but_never_test(self):
        one, same, other = (data.load("digits", seed=seed) for seed in (0, 0, 1))
        np.testing.assert_array_equal(one.x_validation, same.x_validation)
        assert not np.array_equal(one.x_validation, other.x_validation)
        np.testing.assert_array_equal(one.x_test, other.x_test)

    @pytest.mark.parametrize(("validation", "size"), [(100, 100), (0.5, 719)])
    def test_size_of_validation(self, validation, size):
        digits = data.load("digits", validation=validation)
        assert len(digits.x_validation) == size
        assert len(digits.x_train) == 1437 - size

    @pytest.mark.parametrize("validation", [0, -1, 1437, 1.0, 0.0])
    def test_impossible_validation_is_refused(self, validation):
        with pytest.raises(ValueError, match=f"Received: validation={validation}"):
            data.load("digits", validation=validation)


def test_repr_is_short():
    assert repr(data.load("digits")) == (
        "Splits(name='digits', input_shape=(8, 8, 1), classes=10)"
    )


def test_averaged_images_have_the_means_of_their_pixels():
    digits = data.load("digits")
    small = digits.averaged(4)
    assert (small.name, small.input_shape, small.classes) == (
        "digits_2x2",
        (2, 2, 1),
        10,
    )
    for (x, y), (of, same) in zip(
        parts(small).values(), parts(digits).values(), strict=True
    ):
        assert x.dtype == np.float32 and y is same
        np.testing.assert_allclose(x[:, 1, 0, 0], of[:, 4:, :4, 0].mean((1, 2)))
    np.testing.assert_array_equal(digits.averaged(1).x_test, digits.x_test)


@pytest.mark.parametrize("size", [0, 3, 2.0, True])
def test_images_are_averaged_over_a_divisor_of_their_sides(size):
    with pytest.raises(ValueError, match="size="):
        data.load("digits").averaged(size)


def test_texts_are_not_averaged():
    texts = data.Splits("texts", *[np.zeros((2, 32))] * 6, input_shape=(32,))
    with pytest.raises(ValueError, match="size="):
        texts.averaged(2)
