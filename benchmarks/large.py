"""Does a network of 100 million weights calibrate within 8 GB?

    python benchmarks/large.py [--layers 24] [--width 2048] [--examples 512]

A network of Dense layers with random weights is pruned to 50 % by each method, in a
process of its own, with calibration on random inputs. Prints the elapsed seconds, the
CPU seconds, and the peak memory of the process, including Keras and the network.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

METHODS = "wanda", "ria", "sparsegpt", "admm"


def prune(method: str, layers: int, width: int, examples: int) -> None:
    import keras
    import numpy as np

    import keras_lottery as kl

    inputs = y = keras.Input((width,))
    for _ in range(layers):
        y = keras.layers.Dense(width, "relu", kernel_initializer="he_normal")(y)
    model = kl.mask_model(keras.Model(inputs, y))
    x = np.random.default_rng(0).normal(size=(examples, width)).astype("float32")
    began = time.time(), time.process_time()
    kl.prune(model, 0.5, method, data=x)
    seconds, of_cpu = time.time() - began[0], time.process_time() - began[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    masks = kl.get_masks(model)
    print(
        f"{method:10} {masks.sparsity:.1%} of {masks.size:,} weights pruned, "
        f"{seconds:.0f} s, {of_cpu:.0f} s of CPU, at most {memory:.2f} GB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--method", choices=METHODS, help="this one, in this process")
    options = parser.parse_args()
    if options.method:
        prune(options.method, options.layers, options.width, options.examples)
        return
    for method in METHODS:
        subprocess.run([sys.executable, *sys.argv, "--method", method], check=True)


if __name__ == "__main__":
    main()
