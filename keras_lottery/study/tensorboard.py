"""Curves for TensorBoard."""

import importlib.util
import os

from keras_lottery.search import LotteryTicketSearch


def write_curves(search: LotteryTicketSearch, directory: str | os.PathLike) -> None:
    """Writes validation loss and accuracy of all trainings of a search.

    Args:
        search: a search that has stored trainings.
        directory: what to start TensorBoard on: `tensorboard --logdir directory`.

    Raises:
        ImportError: if TensorFlow or TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "Writing for TensorBoard needs the package tensorboard. "
            "Install it with `pip install tensorboard`."
        )
    import tensorflow as tf

    for unit in search.units():
        folder = f"replicate_{unit.replicate}/level_{unit.level:02}"
        name = os.path.join(directory, folder, f"{unit.variant}_{unit.trial}")
        with tf.summary.create_file_writer(name).as_default():
            curve = search.curve(unit.level, unit.variant, unit.replicate, unit.trial)
            for key in ("val_loss", "val_accuracy"):
                for step, value in zip(curve["step"], curve[key], strict=True):
                    tf.summary.scalar(key, value, step=int(step))
