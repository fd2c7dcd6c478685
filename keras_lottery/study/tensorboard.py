"""Writes learning curves for TensorBoard."""

import importlib.util
import os

from keras_lottery import checks
from keras_lottery.search import Run
from keras_lottery.search.run import check_run

__all__ = ["write_curves"]


def write_curves(search: Run, directory: str | os.PathLike) -> None:
    """Writes the validation loss and the objective of all trainings of a search.


    Args:
        search: a `LotteryTicketSearch` or a `Run`.
        directory: the directory for TensorBoard: `tensorboard --logdir directory`.

    Raises:
        ValueError: if an argument is invalid.
        ImportError: if TensorFlow or TensorBoard is not installed.
    """
    check_run("search", search)
    checks.directory("directory", directory)
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "Writing for TensorBoard needs the package tensorboard. "
            "Install it with `pip install tensorboard`."
        )
    import tensorflow as tf

    for which, training in search.trainings().items():
        folder = f"replicate_{which.replicate}/level_{which.level:02}"
        name = os.path.join(directory, folder, f"{which.variant}_{which.trial}")
        with tf.summary.create_file_writer(name).as_default():
            curve = training["curve"]
            for key in sorted(curve.keys() - {"step"}):
                for step, value in zip(curve["step"], curve[key], strict=True):
                    tf.summary.scalar(key, value, step=int(step))
