"""What a .tflite file holds: its operators, tensors, and the memory that they take."""

import math
from collections.abc import Iterable, Mapping, Sequence
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
"""Of an element, by type."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: its name in the file.
        shape: of one call, batches of one row.
        type: `"FLOAT32"`, `"INT8"`, …
        constant: whether the file holds its values.
        sparse: whether it holds them in sparse encoding.
        variable: whether it keeps its values from call to call.
        scale, zero_point: of a tensor that is quantised as one; value = scale *
            (number - zero_point).
    """

    name: str
    shape: tuple[int, ...]
    type: str
    constant: bool = False
    sparse: bool = False
    variable: bool = False
    scale: float | None = None
    zero_point: int | None = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What its elements take."""
        return math.ceil(self.size * BYTES.get(self.type, 4))

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        scaled = f", {self.scale:.9g} * (q - {self.zero_point})" if self.scale else ""
        return f"{self.name}: {self.type.lower()} {shape}{scaled}"


@dataclass(frozen=True)
class Operator:
    """An operator of a file; tensors are given by their number, -1 for none."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """What a file computes.

    Attributes:
        tensors: by number.
        operators: in the order of their execution.
        inputs, outputs: numbers of tensors, in the order that the file has them in.
        input_names, output_names: the model's names for tensors, by number.
    """

    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    input_names: Mapping[int, str] = field(default_factory=dict)
    output_names: Mapping[int, str] = field(default_factory=dict)

    def ends(self) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors of inputs and outputs, with the model's names before their own.

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

    def lifetimes(self) -> list[tuple[int, int, int]]:
        """(bytes, first, last) of every tensor that takes memory while it runs.

        First and last number the operators between which it is needed, 0 being the
        moment before the first of them.
        """
        first = {i: 0 for i in self.inputs}
        last = dict(first)
        for step, operator in enumerate(self.operators, start=1):
            for i in operator.outputs:
                first.setdefault(i, step)
                last[i] = step
            last |= {i: step for i in operator.inputs if i in first}
        last |= {i: len(self.operators) for i in self.outputs}
        return [
            (self.tensors[i].bytes, first[i], last[i])
            for i in first
            if not (self.tensors[i].constant or self.tensors[i].variable)
        ]


def read_graphs(data: bytes) -> list[Graph]:
    """The graphs of a file, the one that is called first.

    Raises:
        ExportError: if it is no .tflite file, or LiteRT cannot load it.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    if not schema.Model.ModelBufferHasIdentifier(data, 0):
        raise ExportError("it is no .tflite file: its identifier is not TFL3")
    try:
        # It verifies what the reader below takes on trust.
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
    filled = [
        model.Buffers(i).DataLength() > 0 or model.Buffers(i).Size() > 0
        for i in range(model.BuffersLength())
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
                tensors=[_tensor(t, types, filled) for t in graph.tensors],
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


def offsets(lifetimes: Iterable[tuple[int, int, int]], align: int = 16) -> list[int]:
    """A place in one block of memory for each tensor, as LiteRT Micro's planner does.

    The largest come first, each in the first gap between those that live at the same
    time.

    Args:
        lifetimes: (bytes, first, last) of each.
        align: every place is a multiple of it.

    >>> offsets([(100, 0, 1), (60, 1, 2), (40, 2, 3), (16, 0, 3)])
    [0, 112, 0, 176]
    """
    lifetimes = list(lifetimes)
    places = [0] * len(lifetimes)
    placed: list[tuple[int, int, int, int]] = []
    order = sorted(range(len(places)), key=lambda i: -lifetimes[i][0])
    for i in order:
        size, first, last = lifetimes[i]
        place = 0
        for start, end, born, gone in sorted(placed):
            if born <= last and first <= gone:
                if start - place >= size:
                    break
                place = max(place, -(-end // align) * align)
        places[i] = place
        placed.append((place, place + size, first, last))
    return places


def planned_bytes(graph: Graph) -> int:
    """The memory that the tensors of a graph share, variables apart."""
    lifetimes = graph.lifetimes()
    ends = [
        place + size
        for place, (size, _, _) in zip(offsets(lifetimes), lifetimes, strict=True)
    ]
    kept = sum(tensor.bytes for tensor in graph.tensors if tensor.variable)
    return max(ends, default=0) + kept


def _tensor(tensor: Any, types: dict[int, str], filled: Sequence[bool]) -> Tensor:
    quantization = tensor.quantization
    scales = [] if quantization is None else _listed(quantization.scale)
    zeros = [] if quantization is None else _listed(quantization.zeroPoint)
    return Tensor(
        name=_text(tensor.name),
        shape=_numbers(tensor.shape),
        type=types.get(tensor.type, "?"),
        constant=filled[tensor.buffer],
        sparse=tensor.sparsity is not None,
        variable=bool(tensor.isVariable),
        scale=float(scales[0]) if len(scales) == 1 else None,
        zero_point=int(zeros[0]) if len(zeros) == 1 else None,
    )


def _tensor_names(maps: Any) -> dict[int, str]:
    """What a signature calls tensors, by their number; one may have several names."""
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
