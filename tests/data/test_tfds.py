import builtins
import os
import re
import shlex

import numpy as np
import pytest

from keras_lottery import data

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with tiny TFDS data sets."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    image = tfds.features.Image(shape=(4, 5, 3))
    label = tfds.features.ClassLabel(num_classes=3)

    def images(n):
        x = np.random.default_rng(n).integers(0, 256, (n, 4, 5, 3), np.uint8)
        return tf.data.Dataset.from_tensor_slices(
            {"image": x, "label": np.arange(n) % 3}
        )

    for name, sizes in {
        "tiny": {"train": 40, "test": 12},
        "tiny_validated": {"train": 40, "validation": 9, "test": 12},
        "tiny_untested": {"train": 40, "validation": 9},
        "tiny_whole": {"train": 40},
        "tiny_test_only": {"test": 12},
    }.items():
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            data_dir=folder,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            split_datasets={part: images(n) for part, n in sizes.items()},
            disable_shuffling=True,
        )
    return folder


@pytest.fixture
def folder(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    return prepared


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def test_arrays_are_those_prepared(folder):
    tiny = data.load("tiny")
    assert (tiny.name, tiny.input_shape, tiny.classes) == ("tiny", (4, 5, 3), 3)
    x = np.random.default_rng(12).integers(0, 256, (12, 4, 5, 3), np.uint8)
    np.testing.assert_allclose(tiny.x_test, x / 255, rtol=1e-6)
    np.testing.assert_array_equal(tiny.y_test, np.arange(12) % 3)
    assert tiny.x_train.dtype == np.float32
    assert tiny.y_train.dtype == np.int32
    assert (len(tiny.x_train), len(tiny.x_validation)) == (36, 4)


def test_images_are_the_same_at_every_call(folder):
    one, same = data.load("tiny"), data.load("tiny")
    np.testing.assert_array_equal(one.x_train, same.x_train)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tiny_validated", (40, 9, 12)),
        ("tiny_untested", (36, 4, 9)),
        ("tiny_whole", (28, 4, 8)),
    ],
)
def test_parts_that_a_set_has_and_lacks(folder, name, sizes):
    tiny = data.load(name)
    assert (len(tiny.x_train), len(tiny.x_validation), len(tiny.x_test)) == sizes


def test_test_part_never_depends_on_the_seed(folder):
    one, other = data.load("tiny_whole", seed=0), data.load("tiny_whole", seed=1)
    np.testing.assert_array_equal(one.x_test, other.x_test)
    assert not np.array_equal(one.x_validation, other.x_validation)


def test_set_without_training_part_is_refused(folder):
    with pytest.raises(ValueError, match=r"named 'train'.*with test"):
        data.load("tiny_test_only")


def test_unknown_name_lists_the_forms(empty):
    with pytest.raises(ValueError, match=r"'digits'.*'mnist'.*\.npz.*name='nope'"):
        data.load("nope")


def test_unknown_version_is_a_value_error(empty):
    with pytest.raises(ValueError, match="cannot be loaded at version"):
        data.load("mnist:0.0.1")


def test_features_seen_are_told(empty):
    with pytest.raises(ValueError, match=r"text \(Text\), label \(ClassLabel\)"):
        data.load("imdb_reviews")


def test_images_of_varying_size_are_refused(empty):
    with pytest.raises(ValueError, match=r"one size.*\(None, None, 3\)"):
        data.load("food101")


def test_unprepared_set_tells_how_to_prepare_it(empty, monkeypatch):
    import tensorflow_datasets as tfds

    with pytest.raises(FileNotFoundError, match="TFDS_DATA_DIR") as caught:
        data.load("fashion_mnist")
    python, flag, code = shlex.split(re.search("python -c .*", str(caught.value))[0])
    assert (python, flag) == ("python", "-c")

    asked = {}

    class Builder:
        def __init__(self, name, data_dir):
            asked.update(name=name, data_dir=data_dir)

        def download_and_prepare(self, download_dir):
            asked.update(download_dir=download_dir)

    monkeypatch.setattr(tfds, "builder", Builder)
    exec(code)
    # With one download folder for two data sets, TFDS builds Fashion-MNIST from the
    # images of MNIST: each needs a folder of its own.
    assert asked == {
        "name": "fashion_mnist",
        "data_dir": str(empty),
        "download_dir": str(empty / "downloads" / "fashion_mnist"),
    }


def test_without_tfds_the_error_tells_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_tfds(name, *args, **kwargs):
        if name == "tensorflow_datasets":
            raise ImportError("No module named 'tensorflow_datasets'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tfds)
    with pytest.raises(ImportError, match=r"name='mnist'.*pip install"):
        data.load("mnist")


@pytest.mark.skipif(
    not os.path.isdir(os.path.join(os.environ.get("TFDS_DATA_DIR", "?"), "mnist")),
    reason="needs TFDS_DATA_DIR with MNIST prepared",
)
def test_real_mnist():
    mnist = data.load("mnist")
    assert (mnist.input_shape, mnist.classes) == ((28, 28, 1), 10)
    assert [len(x) for x in (mnist.x_train, mnist.x_validation, mnist.x_test)] == [
        55_000,
        5_000,
        10_000,
    ]
    assert (mnist.x_train.min(), mnist.x_train.max()) == (0, 1)
    # Mean and deviation that are known of MNIST's training images.
    images = np.concatenate([mnist.x_train, mnist.x_validation])
    assert images.mean() == pytest.approx(0.1307, abs=1e-4)
    assert images.std() == pytest.approx(0.3081, abs=1e-4)
