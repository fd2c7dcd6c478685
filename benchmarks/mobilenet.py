"""Trains and prunes MobileNetV2 of keras.applications on CIFAR-10, and tests its files.

    TFDS_DATA_DIR=... python benchmarks/mobilenet.py [--epochs 3] [--sparsity 0.8]
                      [--out runs/mobilenet]

Trains at 32x32 pixels while `GradualPruning` prunes 80 % of the weights, ranked over
all layers together; then writes a .keras file, a SavedModel and a .tflite file, and
measures the accuracy of each on all test images.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras

import keras_lottery as kl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--out", type=Path, default=Path("runs/mobilenet"))
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    splits = kl.data.load(options.data)
    model = kl.mask_model(
        keras.applications.MobileNetV2(
            splits.input_shape,
            weights=None,
            classes=splits.classes,
            classifier_activation=None,
        )
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # The application's 0.999 is for trainings of a million steps.
            layer.momentum = 0.9
    steps = options.epochs * (len(splits.x_train) // options.batch_size)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    pruning = kl.GradualPruning(
        options.sparsity, steps // 3, 2 * steps // 3, frequency=50
    )
    began = time.perf_counter()
    model.fit(
        *splits.train,
        batch_size=options.batch_size,
        epochs=options.epochs,
        validation_data=splits.validation,
        callbacks=[pruning],
        verbose=2,
    )
    seconds = time.perf_counter() - began
    print(kl.sparsity_summary(model))
    reports = [
        write(model, options.out / name, test_data=splits.test)
        for write, name in (
            (kl.export.to_keras, "model.keras"),
            (kl.export.to_saved_model, "saved_model"),
            (kl.export.to_litert, "model.tflite"),
        )
    ]
    result = {
        "seconds of training": seconds,
        "steps": steps,
        "files": [report.to_dict() for report in reports],
    }
    (options.out / "mobilenet.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
