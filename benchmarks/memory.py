"""How much memory does a search leave behind, compared with a model compiled by Keras?

    [KERAS_BACKEND=jax] python benchmarks/memory.py [--searches 40]

Runs searches with the fused engine in one process, then trains as many models of the
same shape by `fit` with `jit_compile=True`. Prints the growth of the process's memory
for each, without the first quarter, in which libraries are loaded.
"""

import argparse
import gc
import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import psutil

import keras_lottery as kl


def build() -> keras.Model:
    model = kl.models.lenet_300_100((8, 8, 1))
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True,
    )
    return model


def search(digits: kl.data.Splits) -> None:
    found = kl.LotteryTicketSearch(
        build, [0.5], replicates=1, engine="fused", controls={}, workers=0
    )
    found.search(
        *digits.train,
        batch_size=100,
        epochs=2,
        validation_data=digits.validation,
        verbose=0,
    )


def plain(digits: kl.data.Splits) -> None:
    build().fit(*digits.train, batch_size=100, epochs=2, verbose=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--searches", type=int, default=40)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    digits, process = kl.data.load("digits"), psutil.Process()
    for name, train in (("search", search), ("model", plain)):
        sizes = []
        for _ in range(options.searches):
            train(digits)
            gc.collect()
            sizes.append(process.memory_info().rss / 1e6)
        first = options.searches // 4
        growth = (sizes[-1] - sizes[first]) / (options.searches - 1 - first)
        print(f"{keras.backend.backend()}: {growth:.1f} MB a {name}", flush=True)


if __name__ == "__main__":
    main()
