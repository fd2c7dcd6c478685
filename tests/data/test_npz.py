import numpy as np
import pytest

from keras_lottery import data

pytestmark = pytest.mark.once


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (20, 4, 5, 3), np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": rng.integers(0, 256, (8, 4, 5, 3), np.uint8),
        "y_test": np.arange(8) % 4,
    }


@pytest.fixture
def load(tmp_path):
    def load(arrays, **kwargs):
        path = tmp_path / "mine.npz"
        np.savez_compressed(path, **arrays)
        return data.load(path, **kwargs)

    return load


def test_bytes_are_scaled_and_a_tenth_is_held_out(load, arrays):
    mine = load(arrays)
    assert (mine.name, mine.input_shape, mine.classes) == ("mine", (4, 5, 3), 4)
    assert (len(mine.x_train), len(mine.x_validation)) == (18, 2)
    np.testing.assert_allclose(mine.x_test, arrays["x_test"] / 255, rtol=1e-6)
    assert mine.x_train.dtype == mine.x_validation.dtype == np.float32
    np.testing.assert_array_equal(mine.y_test, arrays["y_test"])


def test_images_stay_with_their_labels(load, arrays):
    arrays["x_train"][:, 0, 0, 0] = arrays["y_train"]
    mine = load(arrays, validation=5)
    for x, y in ((mine.x_train, mine.y_train), (mine.x_validation, mine.y_validation)):
        np.testing.assert_array_equal(np.round(x[:, 0, 0, 0] * 255), y)


def test_wider_integers_are_scaled_by_their_own_range(load, arrays):
    arrays["x_test"] = np.full((8, 4, 5, 3), 65_535, np.uint16)
    assert load(arrays).x_test.max() == 1


def test_floats_are_taken_as_they_are(load, arrays):
    arrays["x_test"] = np.full((8, 4, 5, 3), -3.5)
    x_test = load(arrays).x_test
    assert x_test.dtype == np.float32
    assert np.all(x_test == -3.5)


def test_path_may_be_a_string(tmp_path, arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    assert data.load(str(tmp_path / "mine.npz")).name == "mine"


def test_own_validation_part_is_used(load, arrays):
    own = {"x_validation": arrays["x_test"][:3], "y_validation": arrays["y_test"][:3]}
    mine = load(arrays | own)
    assert (len(mine.x_train), len(mine.x_validation)) == (20, 3)
    with pytest.raises(ValueError, match=r"validation part of its own.*validation=5"):
        load(arrays | own, validation=5)


def test_form_of_keras_own_files(load, arrays):
    arrays = {
        key: array[..., 0] if array.ndim == 4 else array[:, None]
        for key, array in arrays.items()
    }
    mine = load(arrays)
    assert mine.input_shape == (4, 5, 1)
    assert mine.y_train.ndim == 1


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_missing_key_is_named(load, arrays, key):
    del arrays[key]
    with pytest.raises(ValueError, match=f"without {key}"):
        load(arrays)


def test_half_a_validation_part_is_refused(load, arrays):
    with pytest.raises(ValueError, match="without y_validation"):
        load(arrays | {"x_validation": arrays["x_test"]})


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("y_train", np.arange(19) % 4, "20 images, 19 labels"),
        ("x_test", np.zeros((8, 4, 4, 3)), r"shape \(8, 4, 4, 3\), and \(n, 4, 5, 3\)"),
        ("x_test", np.zeros((8, 60)), r"shape \(8, 60\)"),
        ("x_test", np.zeros((8, 4, 5, 3), np.int64), "dtype int64"),
        ("y_test", np.eye(8), r"y_test of integer classes.*shape \(8, 8\)"),
        ("y_test", np.zeros(8), "y_test of integer classes.*float64"),
        ("y_test", np.arange(8) - 1, "labels from -1 to 6"),
        ("x_test", np.zeros((0, 4, 5, 3)), "0 images, 8 labels"),
        ("x_train", np.full((20, 4, 5, 3), np.nan), "x_train of finite numbers"),
        ("x_test", np.full((8, 4, 5, 3), np.inf), "x_test of finite numbers"),
        ("y_test", np.arange(8) * 10**6, "labels up to 7000000"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(load, arrays, key, array, message):
    arrays[key] = array
    with pytest.raises(ValueError, match=message):
        load(arrays)


def test_nothing_is_unpickled(load, arrays):
    arrays["y_train"] = np.array([print] * 20, dtype=object)
    with pytest.raises(ValueError, match="plain arrays"):
        load(arrays)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        data.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="a directory"):
        (tmp_path / "folder.npz").mkdir()
        data.load(tmp_path / "folder.npz")


@pytest.mark.parametrize("damage", ["text", "cut", "flipped", "npy"])
def test_damaged_file_is_named(tmp_path, arrays, damage):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    if damage == "npy":
        np.save(tmp_path / "one.npy", arrays["x_test"])
        whole = (tmp_path / "one.npy").read_bytes()
    path.write_bytes(
        {
            "text": b"not an archive",
            "cut": whole[: len(whole) // 2],
            "flipped": whole[:300] + bytes(50) + whole[350:],
            "npy": whole,
        }[damage]
    )
    with pytest.raises(ValueError, match=r"Expected an \.npz file.*mine\.npz"):
        data.load(path)
