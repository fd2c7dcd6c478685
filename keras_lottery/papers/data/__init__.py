"""Data sets of images and of texts, as arrays: `load` finds them by name."""

import os
from pathlib import Path

from keras_lottery import checks
from keras_lottery.papers.data.digits import load_digits
from keras_lottery.papers.data.npz import load_npz
from keras_lottery.papers.data.splits import Size, Splits
from keras_lottery.papers.data.tfds import load_tfds
from keras_lottery.papers.data.wordnet import TASKS, load_wordnet

__all__ = ["Splits", "load"]


def load(
    name: str | os.PathLike[str], validation: Size | None = None, seed: int = 0
) -> Splits:
    """Loads a data set of images, in training, validation and test parts.

    Images are scaled to [0, 1]; texts are numbers of words. Nothing is downloaded.

    Args:
        name: one of

            - `"digits"`: the 1,797 digits of scikit-learn, 8x8 pixels; in 897
              training, 540 validation and 360 test examples;
            - an image-classification data set of
              [TFDS](https://www.tensorflow.org/datasets/catalog), such as `"mnist"`,
              prepared in `~/tensorflow_datasets` or in the folder that the environment
              variable `TFDS_DATA_DIR` names. Its validation part stands in for a
              missing test part; without either, a fixed fifth is the test part;
            - a task of the glosses of [WordNet](https://wordnet.princeton.edu), which
              Debian's package `wordnet-base` brings; the environment variable
              `WNSEARCHDIR` names another folder. Texts are of 32 words, of a
              vocabulary of 8,192. `"wordnet_mlm"`: the five words that are masked;
              `"wordnet_noun_class"`: which of 26 kinds of nouns a gloss is of;
              `"wordnet_part_of_speech"`: one of 4; `"wordnet_is_a"`: whether the first
              gloss is of a kind of the second. All have the same synsets for training,
              validation and test;
            - the path of an .npz file with `x_train`, `y_train`, `x_test`, `y_test`
              and, if wanted, `x_validation`, `y_validation`. Images of unsigned
              integers are scaled, floats are taken as they are.
        validation: the validation part that is held out of the training part: a
            number of examples, or a share between 0 and 1. By default the data set's
            own; where it has none, 5,000 examples of MNIST and CIFAR-10, as in
            Frankle & Carbin, and a tenth of others.
        seed: chooses the validation examples. The test part is the same for all.

    Returns:
        The arrays with the data set's name, image shape and number of classes.

    Raises:
        FileNotFoundError: if the data set is not on this machine; says how to get it.
        ImportError: if it is one of TFDS, which is not installed.
        ValueError: if there is no such data set, or it is not one of images of one
            size and their classes.

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
