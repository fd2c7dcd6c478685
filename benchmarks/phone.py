"""Files on an emulated ARM CPU: the gains by zeros, removed channels and eight bits.

    python benchmarks/phone.py [--parts dense convolutions applications rules]
                               [--rounds 9] [--setup] [--out runs/phone]

Runs .tflite files in the aarch64 build of LiteRT under `qemu-aarch64`, in turns and
with one thread. Prints their CPU time and size as shares of those of the first file
(medians), and how far outputs differ from those on this machine, as a share of the
largest output. Emulated time follows the number of instructions, not a phone's caches
(`arm.py`).

- `dense`: 784-1024-1024-10 with scattered zeros, blocks of 1x4, removed units, or int8;
- `convolutions`: a net like MobileNetV1 at 96x96 pixels, with zeros in its 1x1
  convolutions, removed channels, or int8;
- `applications`: nets of keras.applications with random weights, adapted by
  `adapt_for_xnnpack`, with 80 % zeros in their 1x1 kernels;
- `rules`: small nets that fit XNNPACK's pattern or miss it, what `explain_sparse` says
  about them, and how a sparse file compares with a dense one that has the same zeros.
  Files that `to_litert` refuses to write sparsely are written all the same.

Without QEMU and LiteRT's build, one line says so; `--setup` installs them.
"""

import argparse
import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import arm
import keras
import numpy as np
from keras import layers as L

import keras_lottery as kl
from keras_lottery.ship.export import litert, verify
from keras_lottery.tables import text_table

# Nets with random weights decide by small margins, so eight bits change decisions.
verify.INT8_AGREEMENT, verify.INT8_MEAN_TOLERANCE = 0.0, 1.0

File = tuple[str, keras.Model, dict[str, Any]]
"""The name of a file, the model, and arguments of `to_litert`."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", default=[*PARTS], choices=[*PARTS, "rules"])
    add("--rounds", type=int, default=9, help="of calls (%(default)s)")
    add("--setup", action="store_true", help="install QEMU and LiteRT's ARM build")
    add("--out", type=Path, default=Path("runs/phone"))
    options = parser.parse_args()
    if options.setup:
        arm.prepare()
    if (reason := arm.why_not()) is not None:
        print(f"skipped: {reason}")
        return
    for part in options.parts:
        keras.utils.set_random_seed(0)
        if part == "rules":
            rules(options)
            continue
        for title, files in PARTS[part]():
            print(f"\n{title}\n{compared(list(files), options)}", flush=True)


def compared(files: list[File], options: Any) -> str:
    """A table of files, with figures as shares of those of the first one."""
    paths, bytes_ = [], []
    for number, (_, model, how) in enumerate(files):
        path = options.out / f"{number}.tflite"
        bytes_.append(write(model, path, **how).bytes)
        paths.append(path)
    rows = []
    emulated = arm.emulate(paths, options.rounds)
    for (name, _, _), path, size, there in zip(
        files, paths, bytes_, emulated, strict=True
    ):
        row = [name, f"{there.ratio:.3f}", f"{size / bytes_[0]:.3f}"]
        rows.append([*row, f"{difference(path, there):.1e}"])
    return text_table(rows, ["file", "emulated time", "size", "ARM and x86 differ"])


def difference(path: Path, there: arm.Emulated) -> float:
    """The difference of outputs on ARM from those here, as a share of the largest."""
    here = arm.here(path)
    largest = max(np.abs(here).max(), np.finfo("float32").tiny)
    return float(np.abs(there.output - here).max() / largest)


def write(model: keras.Model, path: Path, **how: Any) -> Any:
    """Writes a .tflite file without printing anything."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kl.export.to_litert(model, path, **how)


def dense() -> Iterator[tuple[str, Iterator[File]]]:
    """Files of a multi-layer perceptron."""
    model = keras.Sequential(
        [keras.Input((784,)), *(L.Dense(n, "relu") for n in (1024, 1024, 10))]
    )

    def files() -> Iterator[File]:
        yield "dense float32", model, {}
        for sparsity in (0.9, 0.97):
            yield f"{sparsity:.0%} scattered zeros", pruned(model, sparsity), {}
        for sparsity in (0.8, 0.9, 0.95):
            blocks = pruned(model, sparsity, granularity="block_1x4")
            yield f"{sparsity:.0%} in blocks of 1x4", blocks, {}
        yield "half of the units removed", halved(model), {}
        yield from in_int8("dense", model)
        yield from in_int8("half of the units removed", halved(model))

    yield "784-1024-1024-10", files()


def convolutions() -> Iterator[tuple[str, Iterator[File]]]:
    """Files of a small net like MobileNetV1."""
    model = net(width=64, blocks=6, size=96)

    def files() -> Iterator[File]:
        yield "dense float32", model, {}
        for sparsity in (0.7, 0.8, 0.9):
            zeros = pruned(model, sparsity, "xnnpack", allocation="uniform")
            yield f"{sparsity:.0%} zeros in 1x1 kernels", zeros, {}
        yield "the last one, written as a dense file", zeros, {"sparse": False}
        yield "half of the channels removed", halved(model), {}
        yield from in_int8("dense", model)
        yield from in_int8("half of the channels removed", halved(model))

    yield "MobileNetV1-like, 96x96 pixels", files()


def applications() -> Iterator[tuple[str, Iterator[File]]]:
    """Files of nets of keras.applications."""
    nets = keras.applications
    for build in (nets.MobileNet, nets.MobileNetV2, nets.EfficientNetB0):
        how = {"input_shape": (96, 96, 3), "classifier_activation": None}
        given = build(weights=None, **how)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = kl.export.adapt_for_xnnpack(given)
        zeros = pruned(model, 0.8, "xnnpack", allocation="uniform")
        files = [("dense float32", given, {}), ("80% zeros in 1x1 kernels", zeros, {})]
        yield (
            f"{build.__name__}, 96x96 pixels",
            iter([*files, *in_int8("dense", given)]),
        )


PARTS: dict[str, Callable[[], Iterator[tuple[str, Iterator[File]]]]] = {
    "dense": dense,
    "convolutions": convolutions,
    "applications": applications,
}


def pruned(model: keras.Model, sparsity: float, which: Any = None, **how: Any) -> Any:
    """A copy with that share of zeros."""
    masked = kl.mask_model(model, which)
    kl.prune(masked, sparsity, **how)
    return masked


def halved(model: keras.Model) -> keras.Model:
    """A smaller model, with half of the units and filters."""
    return kl.compact(pruned(model, 0.5, None, criterion="l1", granularity="filter"))


def in_int8(name: str, model: keras.Model) -> Iterator[File]:
    """A file of int8 weights and arithmetic."""
    shape = (32, *model.input_shape[1:])
    x = np.random.default_rng(0).random(shape, dtype="float32")
    yield f"{name}, int8", model, {"quantize": "int8", "representative_data": x}


def net(
    width: int = 96,
    blocks: int = 4,
    size: int = 64,
    channels: int = 3,
    stem: str = "valid",
    down: str = "valid",
    kernel: int = 3,
    act: Any = "relu",
    mid: Callable[[Any], Any] | None = None,
    end: str = "pool",
) -> keras.Model:
    """A net that fits the pattern, or one that misses it.

    Blocks of a depthwise and a 1x1 convolution, of which every other one halves the
    picture and doubles the channels; `mid` comes before the last.
    """

    def activated(x: Any) -> Any:
        return L.Activation(act)(x) if isinstance(act, str) else act()(x)

    def normal(x: Any) -> Any:
        return activated(L.BatchNormalization()(x))

    inputs = x = keras.Input((size, size, channels))
    x = L.ZeroPadding2D(1)(x) if stem == "valid" else x
    x = normal(L.Conv2D(24, 3, 2, stem, use_bias=False)(x))
    for number in range(blocks):
        stride, padding = (2, down) if number % 2 else (1, "same")
        if mid is not None and number == blocks - 1:
            x = mid(x)
        if (stride, padding) == (2, "valid"):
            x = L.ZeroPadding2D(kernel // 2)(x)
        x = normal(L.DepthwiseConv2D(kernel, stride, padding, use_bias=False)(x))
        x = normal(L.Conv2D(width * 2 ** (number // 2), 1, use_bias=False)(x))
    if end == "pool":
        return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))
    if end == "flatten":
        return keras.Model(inputs, L.Dense(10)(L.Flatten()(x)))
    if end == "keepdims":
        x = L.GlobalAveragePooling2D(keepdims=True)(x)
        return keras.Model(inputs, L.Reshape((10,))(L.Conv2D(10, 1)(x)))
    pooled = L.Dense(10)(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, [L.Conv2D(10, 1)(x), pooled])


def squeezed(x: Any) -> Any:
    y = L.GlobalAveragePooling2D(keepdims=True)(x)
    y = L.Conv2D(x.shape[-1], 1, activation="sigmoid")(y)
    return L.Multiply()([x, y])


RULES: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "5x5": {"kernel": 5},
    "relu6": {"act": "relu6"},
    "leaky_relu": {"act": "leaky_relu"},
    "elu": {"act": "elu"},
    "gelu": {"act": "gelu"},
    "silu": {"act": "silu"},
    "hard_silu": {"act": "hard_silu"},
    "tanh": {"act": "tanh"},
    "x + y": {"mid": lambda x: x + L.ReLU()(x)},
    "squeeze and excite": {"mid": squeezed},
    "separable": {"mid": lambda x: L.SeparableConv2D(96, 3, padding="same")(x)},
    "stem of padding 'same'": {"stem": "same"},
    "one input channel": {"channels": 1},
    "7x7": {"kernel": 7},
    "flattened at the end": {"end": "flatten"},
    "depthwise 'same', even": {"down": "same"},
    "depthwise 'same', odd": {"down": "same", "size": 66},
    "two outputs": {"end": "two"},
    "head of convolutions": {"end": "keepdims"},
    "MaxPooling2D": {"mid": lambda x: L.MaxPooling2D()(x)},
    "Concatenate": {"mid": lambda x: L.Concatenate()([x, x])},
    "normalised by itself": {"mid": lambda x: L.BatchNormalization()(x)},
    "PReLU": {"act": lambda: L.PReLU(shared_axes=[1, 2])},
    "x + 3": {"mid": lambda x: x + 3.0},
}


def rules(options: Any) -> None:
    """Compares what `explain_sparse` says about nets with their sparse files."""
    unsafe = litert.wrong_on_arm
    print("\n| net | it says | emulated time | ARM and x86 differ |\n|---|---|---|---|")
    for name, how in RULES.items():
        model = pruned(net(**how), 0.8, is_pointwise, allocation="uniform")
        report = kl.export.explain_sparse(model)
        said = "wrong" if report.wrong else "sparse" if report.sparse else "dense"
        files = [options.out / f"rule_{i}.tflite" for i in range(2)]
        litert.wrong_on_arm = lambda model: []
        for file, sparse in zip(files, (False, True), strict=True):
            write(model, file, sparse=sparse)
        litert.wrong_on_arm = unsafe
        try:
            there = arm.emulate(files, options.rounds)[1]
        except RuntimeError as error:
            result = str(error).strip().splitlines()[-1]
            print(f"| {name} | {said} | - | {result} |", flush=True)
            continue
        off = difference(files[1], there)
        print(f"| {name} | {said} | {there.ratio:.3f} | {off:.1e} |", flush=True)


def is_pointwise(layer: Any) -> bool:
    kinds = (L.Conv2D, L.SeparableConv2D)
    return isinstance(layer, kinds) and layer.strides == (1, 1)


if __name__ == "__main__":
    main()
