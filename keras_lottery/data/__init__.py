"""Data sets of images and texts, as arrays: `load` finds them by name."""

import os
from pathlib import Path

from keras_lottery import checks
from keras_lottery.data.digits import load_digits
from keras_lottery.data.npz import load_npz
from keras_lottery.data.splits import Size, Splits
from keras_lottery.data.tfds import load_tfds
from keras_lottery.data.wordnet import TASKS, load_wordnet

__all__ = ["Splits", "load"]


def load(
    name: str | os.PathLike[str], validation: Size | None = None, seed: int = 0
) -> Splits:
    """Loads a data set of images or texts, in training, validation and test parts.

    Images are scaled to [0, 1]; texts are word indices. Nothing is downloaded.

    Args:
        name: one of

            - `"digits"`: the 1,797 digits of scikit-learn, 8x8 pixels, in 897
              training, 540 validation and 360 test examples;
            - an image-classification data set of
              [TFDS](https://www.tensorflow.org/datasets/catalog), such as `"mnist"`,
              prepared in `~/tensorflow_datasets` or in the folder that the environment
              variable `TFDS_DATA_DIR` names. If it has no test part, its validation
              part is used instead; if it has neither, a fixed fifth is held out;
            - a task on the glosses of [WordNet](https://wordnet.princeton.edu), which
              Debian's package `wordnet-base` installs; the environment variable
              `WNSEARCHDIR` names another folder. Texts have 32 words from a vocabulary
              of 8,192. The tasks are `"wordnet_mlm"`: to find five masked words;
              `"wordnet_noun_class"`: which of 26 kinds of nouns a gloss describes;
              `"wordnet_part_of_speech"`: which of 4; and `"wordnet_is_a"`: whether the
              first gloss describes a kind of the second. All tasks split the synsets
              into training, validation and test in the same way;
            - the path of an .npz file with `x_train`, `y_train`, `x_test`, `y_test`
              and, optionally, `x_validation`, `y_validation`. Images of unsigned
              integers are scaled; floats are left as they are.
        validation: the validation part to hold out of the training part: a number of
            examples, or a share between 0 and 1. By default the data set's own; if it
            has none, 5,000 examples of MNIST and CIFAR-10, as in Frankle & Carbin, and
            a tenth of others.
        seed: chooses the validation examples. The test part does not depend on it.

    Returns:
        The arrays with the data set's name, image shape and number of classes.

    Raises:
        FileNotFoundError: if the data set is not on this machine; the message says how
            to get it.
        ImportError: if the data set needs TFDS, which is not installed.
        ValueError: if there is no such data set, or it does not consist of images of
            one size and their classes.

    Example:

    >>> digits = load("digits")
    >>> digits
    Splits(name='digits', input_shape=(8, 8, 1), classes=10)
    >>> digits.x_train.shape, digits.y_train.shape
    ((897, 8, 8, 1), (897,))
    """
    checks.existing("name", name)
    checks.seed("seed", seed)
    if validation is not None and not isinstance(validation, bool):
        checks.number("validation", validation, above=0)
    if isinstance(name, str) and name == "digits":
        return load_digits(validation, seed)
    if isinstance(name, str) and name in TASKS:
        return load_wordnet(name, validation)
    if Path(name).suffix == ".npz":
        return load_npz(Path(name), validation, seed)
    return load_tfds(os.fspath(name), validation, seed)
