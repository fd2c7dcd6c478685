"""A script that measures the latency and memory of exported files.

    python -P measure.py < request.json > answer.json

It runs in a process of its own, started by its path. The process imports neither this
library nor Keras, TensorFlow has its number of threads from the start, and only the
runtime is resident before a file is loaded.
"""

import contextlib
import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 5
MOST_CALLS, FEWEST_CALLS = 2_000, 5


class LiteRT:
    """A .tflite file, ready to run one random row."""

    runtime = "ai_edge_litert.interpreter"

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        self.interpreter = interpreter(path, request["threads"], request["xnnpack"])
        for each in self.interpreter.get_input_details():
            shape = one_row(each["shape_signature"], request["shape"])
            if shape != list(each["shape"]):
                self.interpreter.resize_tensor_input(each["index"], shape)
        self.interpreter.allocate_tensors()
        for each in self.interpreter.get_input_details():
            array = random_array(each["shape"], np.dtype(each["dtype"]))
            self.interpreter.set_tensor(each["index"], array)
        self.run = self.interpreter.invoke

    def outputs(self) -> list[np.ndarray]:
        """The outputs for the row."""
        self.run()
        details = self.interpreter.get_output_details()
        return [self.interpreter.get_tensor(each["index"]) for each in details]

    def operators(self) -> str:
        """The operators that run, in order, and how many of each run in XNNPACK.

        The graph holds a delegate's node beside the nodes that it replaces, which are
        those from its outputs back to its inputs.
        """
        nodes = self.interpreter._get_ops_details()
        own = [node for node in nodes if node["op_name"] != "DELEGATE"]
        makers = {tensor: node for node in own for tensor in node["outputs"]}
        sparse = {
            tensor["index"]
            for tensor in self.interpreter.get_tensor_details()
            if tensor["sparsity_parameters"]
        }

        def name(node: dict[str, Any]) -> str:
            is_sparse = node["op_name"] != "DENSIFY" and sparse & set(node["inputs"])
            return "sparse " * bool(is_sparse) + node["op_name"]

        replaced: dict[int, list[dict[str, Any]]] = {}
        for node in nodes:
            if node["op_name"] == "DELEGATE":
                replaced[node["index"]] = inside(node, makers)
        gone = {node["index"] for each in replaced.values() for node in each}
        parts = [name(node) for node in own if node["index"] not in gone]
        for each in replaced.values():
            parts.append(f"XNNPACK({counted(name(node) for node in each)})")
        return counted(parts)


class SavedModel:
    """A SavedModel, ready to run one random row, called from Python."""

    runtime = "tensorflow"

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # A second file finds them set.
            tf.config.threading.set_intra_op_parallelism_threads(request["threads"])
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self.loaded = tf.saved_model.load(path)
        signature = self.loaded.signatures["serving_default"]
        inputs = {}
        for name, spec in signature.structured_input_signature[1].items():
            shape = one_row([size or -1 for size in spec.shape], request["shape"])
            array = random_array(shape, spec.dtype.as_numpy_dtype)
            inputs[name] = tf.constant(array)

        def run() -> list[np.ndarray]:
            return [output.numpy() for output in signature(**inputs).values()]

        self.run = self.outputs = run

    def operators(self) -> str:
        """Empty, because TensorFlow rewrites its graph and does not report how."""
        return ""


class ONNX:
    """An .onnx file, ready to run one random row in ONNX Runtime."""

    runtime = "onnxruntime"

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        options.inter_op_num_threads = 1
        cpu = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(path, options, providers=cpu)
        inputs = {}
        for each in session.get_inputs():
            sizes = [size if isinstance(size, int) else -1 for size in each.shape]
            name = each.type[len("tensor(") : -1]
            dtype = np.dtype({"float": "float32", "double": "float64"}.get(name, name))
            shape = one_row(sizes, request["shape"])
            inputs[each.name] = random_array(shape, dtype)
        self.run = self.outputs = lambda: session.run(None, inputs)

    def operators(self) -> str:
        """Empty, because ONNX Runtime rewrites its graph and does not report how."""
        return ""


class OpenVINO:
    """A directory with model.xml and model.bin, ready to run one random row."""

    runtime = "openvino"

    def __init__(self, path: str, request: dict[str, Any]) -> None:
        import openvino

        # Some CPUs would compute in bfloat16, and a thread that is bound to a processor
        # waits while other work runs there.
        how = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": request["threads"],
            "ENABLE_CPU_PINNING": False,
        }
        net = openvino.Core().compile_model(f"{path}/model.xml", "CPU", how)
        inputs = {}
        for each in net.inputs:
            sizes = [
                -1 if size.is_dynamic else size.get_length()
                for size in each.partial_shape
            ]
            shape = one_row(sizes, request["shape"])
            inputs[each.any_name] = random_array(shape, each.element_type.to_dtype())
        self.run = self.outputs = lambda: [*net(inputs).values()]

    def operators(self) -> str:
        """Empty, because OpenVINO rewrites its graph."""
        return ""


FORMATS: dict[str, Any] = {
    "litert": LiteRT,
    "saved_model": SavedModel,
    "onnx": ONNX,
    "openvino": OpenVINO,
}


def format_of(path: str | Path) -> str | None:
    """The format of a file or directory, a key of `FORMATS`, if it is one of them."""
    if Path(path).is_dir():
        inside = {"saved_model.pb": "saved_model", "model.xml": "openvino"}
        found = [inside[name] for name in inside if Path(path, name).exists()]
        return found[0] if found else None
    return {".tflite": "litert", ".onnx": "onnx"}.get(Path(path).suffix)


def interpreter(path: str, threads: int, xnnpack: bool) -> Any:
    """The LiteRT interpreter of a file, with or without XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    resolver = OpResolverType.AUTO if xnnpack else plain
    return Interpreter(
        path, num_threads=threads, experimental_op_resolver_type=resolver
    )


def one_row(signature: Any, shape: list[int] | None) -> list[int]:
    """The shape of one row of an input, with open sizes from the data, or else 32."""
    if shape is None or len(shape) + 1 != len(signature):
        shape = [32] * (len(signature) - 1)
    sizes = zip(signature, [1, *shape], strict=True)
    return [int(size) if size > 0 else other for size, other in sizes]


def random_array(shape: Any, dtype: np.dtype) -> np.ndarray:
    """Random floats from 0 to 1, like images, or integers 0 and 1, valid embeddings."""
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return rng.random(shape).astype(dtype)
    return rng.integers(2, size=shape).astype(dtype)


def inside(delegate: dict[str, Any], makers: dict[int, Any]) -> list[dict[str, Any]]:
    """The nodes that a delegate's node replaces, in order."""
    found: dict[int, dict[str, Any]] = {}
    tensors = list(delegate["outputs"])
    stop = set(delegate["inputs"])
    while tensors:
        tensor = tensors.pop()
        node = makers.get(tensor)
        if tensor not in stop and node and node["index"] not in found:
            found[node["index"]] = node
            tensors += list(node["inputs"])
    return [found[index] for index in sorted(found)]


def counted(names: Any) -> str:
    """Each name once, with the number of its occurrences if there are several."""
    counts = Counter(names)
    return ", ".join(f"{n} {name}" if n > 1 else name for name, n in counts.items())


def load(path: str, request: dict[str, Any]) -> Any:
    """Loads a file, ready to run."""
    return FORMATS[format_of(path) or "litert"](path, request)


def time_calls(run: Callable[[], object], number: int) -> list[float]:
    """The duration of each of `number` calls in microseconds."""
    clock = time.perf_counter_ns
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(number):
        began = clock()
        run()
        times.append((clock() - began) / 1e3)
    return times


def latencies(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Measures the latency of all files, in rounds that go through all of them."""
    files = [load(path, request) for path in request["files"]]
    for path, file in zip(request["files"], files, strict=True):
        for output in file.outputs():
            if np.issubdtype(output.dtype, np.floating) and np.isnan(output).any():
                raise ValueError(f"NaN among the outputs of '{path}'")
    share = 1e6 * request["seconds"] / request["rounds"]
    numbers = []
    for file in files:
        slow = float(np.median(time_calls(file.run, FEWEST_CALLS)))
        numbers.append(int(np.clip(share / slow, FEWEST_CALLS, MOST_CALLS)))
    rounds = [
        [time_calls(file.run, n) for file, n in zip(files, numbers, strict=True)]
        for _ in range(request["rounds"])
    ]
    answers = []
    for index, file in enumerate(files):
        own = [times[index] for times in rounds]
        p50, p90 = np.percentile(np.concatenate(own), [50, 90])
        medians = [float(np.median(times)) for times in own]
        answers.append(
            {
                "p50_us": float(p50),
                "p90_us": float(p90),
                "spread": (max(medians) - min(medians)) / float(p50),
                "calls": numbers[index] * request["rounds"],
                "operators": file.operators(),
            }
        )
    return answers


def memory(request: dict[str, Any]) -> int | None:
    """The most bytes that loading and running a file adds to the bare runtime."""
    (path,) = request["files"]
    importlib.import_module(FORMATS[format_of(path) or "litert"].runtime)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # This resets the peak.
        before = _resident("VmRSS")
    except OSError:
        return None
    time_calls(load(path, request).run, FEWEST_CALLS)
    return _resident("VmHWM") - before


def _resident(entry: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {entry}")


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    answer = memory(asked) if asked["memory"] else latencies(asked)
    print(json.dumps(answer))
