"""Image-classification data sets of TensorFlow Datasets that are prepared here."""

import os
from typing import Any

from keras_lottery.data.splits import Arrays, Size, Splits, hold_out, make_splits

# The validation parts of Frankle & Carbin; a tenth is held out of other data sets.
_VALIDATION = {"mnist": 5_000, "cifar10": 5_000}


def load_tfds(name: str, validation: Size | None, seed: int) -> Splits:
    """Loads a TFDS data set that is on this machine, without downloading anything."""
    builder = _find(name)
    classes = _check_features(name, dict(builder.info.features.items()))
    if not builder.is_prepared():
        raise FileNotFoundError(_how_to_prepare(name, builder))
    parts = _read(builder)
    if "train" not in parts:
        raise ValueError(
            "Expected a TFDS data set with a part named 'train'. Received: "
            f"name={name!r}, with {', '.join(builder.info.splits)}."
        )
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    if "test" not in parts:
        parts["train"], parts["test"] = hold_out(parts["train"], 0.2, seed=0)
    return make_splits(
        name,
        parts,
        classes=classes,
        validation=validation,
        default=_VALIDATION.get(builder.name, 0.1),
        seed=seed,
    )


def _find(name: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "Expected 'digits', the path of an .npz file, or, with TFDS installed, the "
            f"name of one of its data sets. Received: name={name!r} ({error}). Install "
            "TFDS: pip install tensorflow tensorflow-datasets importlib_resources"
        ) from error
    try:
        # TFDS reads the variable on import, which may have been long ago.
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            "Expected 'digits', the name of an image-classification data set of TFDS "
            "(such as 'mnist', 'fashion_mnist', 'cifar10', 'emnist/balanced'; see "
            "https://www.tensorflow.org/datasets/catalog), or the path of an .npz "
            f"file. Received: name={name!r} ({reason})"
        ) from error


def _check_features(name: str, features: dict[str, Any]) -> int:
    """Refuses data other than classified images; returns the number of classes."""
    import tensorflow_datasets as tfds

    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        seen = ", ".join(f"{key} ({type(f).__name__})" for key, f in features.items())
        raise ValueError(
            "Expected a TFDS data set with the features image (Image) and label "
            f"(ClassLabel). Received: name={name!r}, with {seen}. Save its images and "
            "classes as an .npz file, and give the file's path."
        )
    if None in image.shape:
        raise ValueError(
            f"Expected images of one size. Received: name={name!r}, with images of "
            f"shape {image.shape}, where None varies. Resize them, save them as an "
            ".npz file, and give the file's path."
        )
    return label.num_classes


def _how_to_prepare(name: str, builder: Any) -> str:
    folder = str(builder.data_dir_root)
    # A download folder of its own: TFDS caches what it extracts by file name alone,
    # and would build fashion_mnist from the files of mnist.
    downloads = os.path.join(folder, "downloads", builder.name)
    code = (
        f"import tensorflow_datasets as tfds; tfds.builder({name!r}, "
        f"data_dir={folder!r}).download_and_prepare(download_dir={downloads!r})"
    )
    return (
        f"Expected the TFDS data set {name!r} to be on this machine; nothing is "
        f"downloaded here. Received: nothing prepared in {builder.data_path}. Set the "
        "environment variable TFDS_DATA_DIR to the folder that has it, or prepare it "
        f'once, with a network: python -c "{code}"'
    )


def _read(builder: Any) -> dict[str, Arrays]:
    import tensorflow_datasets as tfds

    parts = {}
    for part in ("train", "validation", "test"):
        if part in builder.info.splits:
            # One batch of everything is the quickest way to read it.
            batch = tfds.as_numpy(
                builder.as_dataset(
                    split=part,
                    batch_size=-1,
                    decoders=tfds.decode.PartialDecoding(
                        {"image": True, "label": True}
                    ),
                    read_config=tfds.ReadConfig(try_autocache=False),
                )
            )
            parts[part] = batch["image"], batch["label"]
    return parts
