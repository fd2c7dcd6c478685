"""Tests masking, pruning, compaction and files on many architectures.

    python benchmarks/zoo.py [--models MobileNetV3Small ...] [--out runs/zoo]

The architectures are families of `keras.applications` with new weights, and tiny
backbones of keras-hub if it is installed. Each model has a process of its own and a
file of its own in `--out`, and is not tried again: the command continues where it
stopped. The table, in Markdown, has the CPU seconds of each step after which the
outputs were still right, the share of parameters that remain without 30 % of the
filters, the bytes, and the total memory; below it are the failures.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported

import keras
import numpy as np

import keras_lottery as kl

APPLICATIONS = (
    *("MobileNetV3Small", "MobileNet", "MobileNetV2", "EfficientNetB0"),
    *("EfficientNetV2B0", "ResNet50", "ResNet50V2", "DenseNet121", "NASNetMobile"),
    *("ConvNeXtTiny", "Xception", "InceptionV3", "InceptionResNetV2", "VGG16"),
)
SIZE = {"NASNetMobile": 224, "InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 96}
# The arguments of tiny backbones: two layers with a width of 16.
HUB: dict[str, dict[str, Any]] = {
    "BertBackbone": {"vocabulary_size": 50, "num_layers": 2, "num_heads": 2}
    | {"hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": 12},
    "DistilBertBackbone": {"vocabulary_size": 50, "num_layers": 2, "num_heads": 2}
    | {"hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": 12},
    "GPT2Backbone": {"vocabulary_size": 50, "num_layers": 2, "num_heads": 2}
    | {"hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": 12},
    "GemmaBackbone": {"vocabulary_size": 50, "num_layers": 2, "num_query_heads": 2}
    | {"num_key_value_heads": 1, "hidden_dim": 16, "intermediate_dim": 32}
    | {"head_dim": 8},
    "ResNetBackbone": {"input_conv_filters": [64], "input_conv_kernel_sizes": [3]}
    | {"stackwise_num_filters": [64, 64], "stackwise_num_blocks": [1, 1]}
    | {"stackwise_num_strides": [1, 2], "block_type": "basic_block"}
    | {"image_shape": (32, 32, 3)},
}


def built(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    if name in HUB:
        import keras_hub

        return getattr(keras_hub.models, name)(**HUB[name])
    size = SIZE.get(name, 64)
    return getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10
    )


def examples(model: keras.Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    data = {}
    for tensor in model.inputs:
        shape = (2, *(size or 12 for size in tensor.shape[1:]))
        is_float = "float" in tensor.dtype
        array = rng.random(shape) if is_float else rng.integers(1, 2, shape)
        data[tensor.name] = array.astype(tensor.dtype)
    return data


def outputs(model: keras.Model, x: dict[str, np.ndarray]) -> list[np.ndarray]:
    given = x if len(x) > 1 else next(iter(x.values()))
    return [np.asarray(y) for y in keras.tree.flatten(model(given, training=False))]


def examine(name: str) -> dict[str, Any]:
    """Each step of one model: the CPU seconds and the result, or the error."""
    model = built(name)
    x = examples(model)
    row: dict[str, Any] = {"model": name, "parameters": model.count_params()}

    def step(label: str, run: Callable[[], Any], like: Any = None) -> Any:
        began = time.process_time()
        try:
            made = run()
            row[f"{label} s"] = round(time.process_time() - began, 1)
        except Exception as error:
            row[label] = f"{type(error).__name__}: {str(error)[:200]}"
            return None
        if like is not None:
            pairs = zip(outputs(like, x), outputs(made, x), strict=True)
            worst = max(abs(a - b).max() / max(abs(a).max(), 1e-9) for a, b in pairs)
            row[label] = "ok" if worst < 1e-3 else f"differs by {worst:.1g}"
        else:
            row.setdefault(label, "ok")
        return made

    def prune_weights() -> None:
        kl.prune(masked, 0.8)
        counts = {n: int(m.sum()) for n, m in kl.get_masks(masked).items()}
        row["emptiest"] = min(
            counts[n] / m.size for n, m in kl.get_masks(masked).items()
        )
        masks = kl.get_masks(masked)
        if masks.kept != round(0.2 * masks.size):
            raise RuntimeError(f"{masks.kept} of {masks.size} weights are left")

    def prune_filters() -> None:
        kl.prune(filters, 0.3, "l1", granularity="filter")

    def save_and_load() -> keras.Model:
        with tempfile.TemporaryDirectory() as folder:
            masked.save(f"{folder}/model.keras")
            return keras.models.load_model(f"{folder}/model.keras")

    def export(quantize: str | None) -> None:
        with tempfile.TemporaryDirectory() as folder:
            report = kl.export.to_litert(
                masked,
                f"{folder}/model.tflite",
                quantize=quantize,
                representative_data=x if len(x) > 1 else next(iter(x.values())),
            )
            row[f"{quantize or 'sparse'} bytes"] = report.bytes

    masked = step("mask", lambda: kl.mask_model(model), like=model)
    if masked is None:
        return row
    filters = kl.mask_model(model)
    step("prune", prune_weights)
    step("strip", lambda: kl.strip_masks(masked), like=masked)
    step("save and load", save_and_load, like=masked)
    step("filters", prune_filters)
    small = step("compact", lambda: kl.compact(filters), like=filters)
    if small is not None:
        row["left"] = round(small.count_params() / model.count_params(), 3)
    step("sparse file", lambda: export(None))
    step("int8 file", lambda: export("int8"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return row | {"peak GB": round(peak / 2**20, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[*APPLICATIONS, *HUB])
    parser.add_argument("--out", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--minutes", type=float, default=20, help="for one model")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one:
        warnings.simplefilter("ignore")
        row = examine(options.one)
        (options.out / f"{options.one}.json").write_text(json.dumps(row, indent=1))
        return
    for name in options.models:
        if not (options.out / f"{name}.json").exists():
            how = [sys.executable, __file__, "--one", name, "--out", str(options.out)]
            try:
                subprocess.run(how, timeout=60 * options.minutes, check=True)
            except subprocess.SubprocessError as error:
                row = {"model": name, "mask": str(error)[:200]}
                (options.out / f"{name}.json").write_text(json.dumps(row, indent=1))
    found = [options.out / f"{name}.json" for name in options.models]
    rows = [json.loads(path.read_text()) for path in found if path.exists()]
    print(as_markdown(rows))


STEPS = {
    "mask": "mask",
    "prune": "prune",
    "strip": "strip",
    "save and load": "save, load",
    "filters": "filters",
    "compact": "compact",
    "sparse file": "sparse file",
    "int8 file": "int8 file",
}


def as_markdown(rows: list[dict[str, Any]]) -> str:
    titles = ["", "parameters", *STEPS.values(), "left", "sparse", "int8", "peak GB"]
    lines = [titles, ["---"] * len(titles)]
    failed = []
    for row in rows:
        cells = [row["model"], f"{row.get('parameters', 0):,}"]
        for step in STEPS:
            fine = row.get(step) == "ok"
            cells.append(f"{row[f'{step} s']}" if fine else "-")
            if step in row and not fine:
                failed.append(f"- {row['model']}, {step}: {row[step]}")
        sizes = [row.get(f"{name} bytes") for name in ("sparse", "int8")]
        cells += [str(row.get("left", "-")), *(f"{n:,}" if n else "-" for n in sizes)]
        lines.append([*cells, str(row.get("peak GB", "-"))])
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([*table, "", *failed])


if __name__ == "__main__":
    main()
