"""Reads the operators and tensors of a .tflite file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keras_lottery.ship.export.errors import ExportError

BYTES = {
    "FLOAT64": 8,
    "INT64": 8,
    "UINT64": 8,
    "FLOAT32": 4,
    "INT32": 4,
    "UINT32": 4,
    "FLOAT16": 2,
    "BFLOAT16": 2,
    "INT16": 2,
    "UINT16": 2,
    "INT8": 1,
    "UINT8": 1,
    "BOOL": 1,
    "INT4": 0.5,
}
"""The size of an element, by type."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: its name in the file.
        shape: its shape in a call with batches of one row.
        type: `"FLOAT32"`, `"INT8"`, …
        sparse: whether the file holds its values in sparse encoding.
        scale, zero_point: the quantisation of a tensor that has only one scale; value =
            scale * (number - zero_point).
    """

    name: str
    shape: tuple[int, ...]
    type: str
    sparse: bool = False
    scale: float | None = None
    zero_point: int | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The size of its elements in bytes."""
        return math.ceil(self.size * BYTES.get(self.type, 4))

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        scaled = f", {self.scale:.9g} * (q - {self.zero_point})" if self.scale else ""
        return f"{self.name}: {self.type.lower()} {shape}{scaled}"


@dataclass(frozen=True)
class Operator:
    """An operator of a file; its tensors are given by number, with -1 for none."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A graph of a file.

    Attributes:
        tensors: the tensors by number.
        operators: the operators in order of execution.
        inputs, outputs: the numbers of tensors, in the file's order.
        input_names, output_names: the model's names for tensors, by number.
    """

    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: Mapping[int, str] = field(default_factory=dict)
    output_names: Mapping[int, str] = field(default_factory=dict)

    def ends(self) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors of inputs and outputs, with the model's names put first.

        >>> x = Tensor("serving_default_x:0", (1, 4), "FLOAT32")
        >>> str(Graph([x], [], (0,), (0,), {0: "x"}, {0: "y"}).ends()[1][0])
        'y (serving_default_x:0): float32 1x4'
        """

        def named(numbers: tuple[int, ...], names: Mapping[int, str]) -> list[Tensor]:
            own = [self.tensors[i] for i in numbers]
            return [
                replace(tensor, name=f"{names[i]} ({tensor.name})")
                if i in names
                else tensor
                for i, tensor in zip(numbers, own, strict=True)
            ]

        sides = (self.inputs, self.input_names), (self.outputs, self.output_names)
        inputs, outputs = (named(*side) for side in sides)
        return inputs, outputs


def read_graphs(data: bytes) -> list[Graph]:
    """Reads the graphs of a file; the first one is the entry point.

    Raises:
        ExportError: if it is no .tflite file, or LiteRT cannot load it.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    if not schema.Model.ModelBufferHasIdentifier(data, 0):
        raise ExportError("it is no .tflite file: its identifier is not TFL3")
    try:
        # LiteRT verifies the file, which the reader below trusts.
        Interpreter(model_content=data)
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"LiteRT cannot load it: {error}") from error
    model = schema.Model.GetRootAs(data)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    operators = _names(schema.BuiltinOperator)
    names = [
        operators.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "?")
        for code in codes
    ]
    types = _names(schema.TensorType)
    signatures = [
        schema.SignatureDefT.InitFromObj(model.SignatureDefs(i))
        for i in range(model.SignatureDefsLength())
    ]
    # Several signatures may call one graph: the first is the one that Keras wrote.
    named = {s.subgraphIndex: s for s in reversed(signatures)}
    graphs = []
    for i in range(model.SubgraphsLength()):
        graph = schema.SubGraphT.InitFromObj(model.Subgraphs(i))
        graphs.append(
            Graph(
                tensors=[_tensor(t, types) for t in graph.tensors],
                operators=[
                    Operator(
                        names[operator.opcodeIndex],
                        _numbers(operator.inputs),
                        _numbers(operator.outputs),
                    )
                    for operator in graph.operators or ()
                ],
                inputs=_numbers(graph.inputs),
                outputs=_numbers(graph.outputs),
                input_names=_tensor_names(named[i].inputs) if i in named else {},
                output_names=_tensor_names(named[i].outputs) if i in named else {},
            )
        )
    return graphs


def _tensor(tensor: Any, types: dict[int, str]) -> Tensor:
    quantization = tensor.quantization
    scales = [] if quantization is None else _listed(quantization.scale)
    zeros = [] if quantization is None else _listed(quantization.zeroPoint)
    return Tensor(
        name=_text(tensor.name),
        shape=_numbers(tensor.shape),
        type=types.get(tensor.type, "?"),
        sparse=tensor.sparsity is not None,
        scale=float(scales[0]) if len(scales) == 1 else None,
        zero_point=int(zeros[0]) if len(zeros) == 1 else None,
    )


def _tensor_names(maps: Any) -> dict[int, str]:
    """The names of tensors in a signature by number; a tensor may have several."""
    names: dict[int, list[str]] = {}
    for each in _listed(maps):
        names.setdefault(each.tensorIndex, []).append(_text(each.name))
    return {number: ", ".join(sorted(own)) for number, own in names.items()}


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name or ""


def _names(numbers: type) -> dict[int, str]:
    return {n: name for name, n in vars(numbers).items() if isinstance(n, int)}


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(map(int, _listed(values)))


def _listed(values: Any) -> list[Any]:
    return [] if values is None else list(values)
