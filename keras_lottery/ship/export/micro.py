"""Export to C, for microcontrollers that run LiteRT Micro."""

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import keras

from keras_lottery import checks
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.ship.export.errors import ExportError
from keras_lottery.ship.export.files import check_unchanged, file_path, staged
from keras_lottery.ship.export.litert import to_litert
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.tflite_file import Graph, Tensor, read_graphs
from keras_lottery.tickets import Ticket

# The operators that `MicroMutableOpResolver` knew in August 2026.
_OPERATORS = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL
    BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION
    CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV
    DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR
    FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL
    HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN
    MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE
    REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE
    SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
MICRO_OPERATORS = frozenset(_OPERATORS.split())
# The methods whose names are not those of their operators in camel case.
METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
# These may mix floats and eight bits; EMBEDDING_LOOKUP has a kernel for that.
MIXED = frozenset(
    ["CALL_ONCE", "CAST", "DEQUANTIZE", "EMBEDDING_LOOKUP", "IF", "QUANTIZE", "WHILE"]
)

# The keywords of C23 and C++23, `main`, and the macros that GCC defines.
_KEYWORDS = """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t
    char32_t char8_t class co_await co_return co_yield compl concept const const_cast
    consteval constexpr constinit continue decltype default delete do double
    dynamic_cast else enum explicit export extern false float for friend goto if inline
    int linux long main mutable namespace new noexcept not not_eq nullptr operator or
    or_eq private protected public register reinterpret_cast requires restrict return
    short signed sizeof static static_assert static_cast struct switch template this
    thread_local throw true try typedef typeid typename typeof typeof_unqual union unix
    unsigned using virtual void volatile wchar_t while xor xor_eq
"""
KEYWORDS = frozenset(_KEYWORDS.split())


@dataclass(frozen=True)
class MicroReport:
    """A report on a model as C source; `str()` gives it as readable lines.

    Attributes:
        path: the `.c` file; the `.h` file lies beside it.
        name: the name of the array.
        bytes: the size of the array, which holds the .tflite file.
        operators: the calls of `MicroMutableOpResolver` that register the operators.
        inputs, outputs: a line for each in the file's order, with its name (and the
            file's own name for the tensor), type, shape and quantisation.
        litert: the report on the .tflite file; `None` if a file was given.
    """

    path: Path
    name: str
    bytes: int
    operators: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    litert: ExportReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as values that JSON can hold."""
        litert = self.litert and self.litert.to_dict()
        lists = {k: list(getattr(self, k)) for k in ("operators", "inputs", "outputs")}
        return asdict(self) | lists | {"path": str(self.path), "litert": litert}

    def __str__(self) -> str:
        lines = [
            f"{self.path} and {self.path.with_suffix('.h').name} (C)",
            f"  bytes           {self.bytes:,} of constants",
            f"  operators       {', '.join(self.operators)}",
        ]
        lines += [f"  input           {line}" for line in self.inputs]
        lines += [f"  output          {line}" for line in self.outputs]
        if self.litert is not None:
            lines += str(self.litert).splitlines()[2:]
        return "\n".join(lines)


def to_c_array(
    ticket_or_model_or_file: Any,
    path: str | os.PathLike[str],
    quantize: Literal["int8"] | None = None,
    representative_data: Any = None,
    test_data: tuple[Any, Any] | None = None,
) -> MicroReport:
    """Writes a model as C source, to be compiled into firmware with LiteRT Micro.

    `name.c` holds the .tflite file as an aligned array of constants; `name.h` declares
    it, lists the operators to register, and has the sizes of inputs and outputs. The
    size that the tensor arena needs depends on the processor and its kernels: provide
    more than enough once, and read `interpreter.arena_used_bytes()` on the device.

    Inputs and outputs are numbered as in `interpreter.output(0)`, whose order may
    differ from that of the Keras model. Comments in `name.h` give the names that
    `to_litert` uses: the model's own, or `output_0`, `output_1` for the outputs of a
    list.

    LiteRT Micro reads only dense weights, in float32 or int8: a zero takes as much
    flash memory as any other weight, whereas a removed unit (`compact`) takes none.

    Args:
        ticket_or_model_or_file: a ticket (its trained model), a masked or an ordinary
            Keras model, or the path of a `.tflite` file, which is used as it is.
        path: the source file, such as `"firmware/digits.c"`. Its stem is the name of
            the array; the same names in upper case begin the header's constants.
        quantize: `None` for float32, or `"int8"`; see `to_litert`. It cannot be given
            with a file.
        representative_data, test_data: see `to_litert`. They cannot be given with a
            file.

    Returns:
        The report, which is also printed.

    Raises:
        ValueError: if an argument is invalid.
        FileNotFoundError: if there is no such file.
        CorruptedFileError: if the file is not the one that a report beside it
            describes, see `check_file`.
        ExportError: if it is no .tflite file, or needs something that LiteRT Micro
            lacks; nothing is written then.
        RuntimeError: for a ticket or a model, if TensorFlow is not installed.

    Example:

    >>> import tempfile
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> folder = tempfile.TemporaryDirectory()
    >>> report = to_c_array(model, f"{folder.name}/tiny.c")
    /...tiny.c and tiny.h (C)
      bytes           ... of constants
      ...
    >>> report.operators
    ('AddFullyConnected',)
    """
    source = file_path(path, ".c")
    file_path(source.with_suffix(".h"), ".h")
    name = source.stem
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or name in KEYWORDS:
        raise ValueError(
            "Expected the stem of `path` to be an identifier of C and C++, since the "
            f"array takes its name. Received: path='{source}', stem '{name}'. Choose a "
            "name such as 'model.c'."
        )
    remedy = "LiteRT Micro has no kernels of float16 or for int8 weights of floats."
    checks.choice("quantize", quantize, (None, "int8"), remedy=remedy)
    kinds = (Ticket, keras.Model, str, os.PathLike)
    form = "a Ticket, a Keras model or the path of a .tflite file"
    checks.instance("ticket_or_model_or_file", ticket_or_model_or_file, kinds, form)
    if isinstance(ticket_or_model_or_file, keras.Model):
        keras_checks.model("ticket_or_model_or_file", ticket_or_model_or_file)
    litert, data, given_as = None, b"", ""
    if isinstance(ticket_or_model_or_file, str | os.PathLike):
        file = checks.existing_file(
            "ticket_or_model_or_file", ticket_or_model_or_file, (".tflite",)
        )
        given = (quantize, representative_data, test_data)
        if any(value is not None for value in given):
            raise ValueError(
                "A .tflite file is taken as it is, without `quantize`, "
                "`representative_data` and `test_data`. Received: one of them beside "
                f"'{file}'. Give them to `to_litert`, which writes the file."
            )
        check_unchanged(file)
        data, given_as = file.read_bytes(), f" of '{file}'"
    else:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
            file = Path(folder, f"{name}.tflite")
            litert = to_litert(
                ticket_or_model_or_file,
                file,
                sparse=False,
                quantize=quantize,
                representative_data=representative_data,
                test_data=test_data,
            )
            data = file.read_bytes()
    try:
        graphs = read_graphs(data)
        _check(graphs)
        inputs, outputs = graphs[0].ends()
    except Exception as error:  # A damaged file may raise anything.
        why = error if isinstance(error, ExportError) else f"it is damaged: {error!r}"
        raise ExportError(
            f"Nothing was written to '{source}'{given_as}: {why}"
        ) from error
    report = MicroReport(
        path=source,
        name=name,
        bytes=len(data),
        operators=tuple(_methods(graphs)),
        inputs=tuple(map(str, inputs)),
        outputs=tuple(map(str, outputs)),
        litert=litert,
    )
    header = source.with_suffix(".h")
    with staged(header) as draft_header, staged(source) as draft:
        draft_header.write_text(_header(report, inputs, outputs), "ascii")
        draft.write_text(_source(name, data), "ascii")
    print(report)
    return report


def _check(graphs: Sequence[Graph]) -> None:
    """Raises ExportError if LiteRT Micro cannot run the graphs."""
    used = {operator.name for graph in graphs for operator in graph.operators}
    tensors = [tensor for graph in graphs for tensor in graph.tensors]
    # Micro would read the remaining numbers as if they were all of them.
    if sparse := [tensor.name for tensor in tensors if tensor.sparse]:
        raise ExportError(
            "LiteRT Micro does not support the sparse encoding of "
            f"{len(sparse)} tensors, such as '{sparse[0]}'. Write the file with "
            "`to_litert(…, sparse=False)`"
        )
    if missing := sorted(used - MICRO_OPERATORS):
        raise ExportError(f"LiteRT Micro lacks the operators {', '.join(missing)}")
    if half := [t.name for t in tensors if t.type in ("FLOAT16", "BFLOAT16")]:
        raise ExportError(
            f"LiteRT Micro has no kernels of half precision, which '{half[0]}' has. "
            "Write the file with quantize=None or 'int8'"
        )
    for graph in graphs:
        for operator in graph.operators:
            numbers = (*operator.inputs, *operator.outputs)
            types = {graph.tensors[i].type for i in numbers if i >= 0}  # -1 is absent
            hybrid = "FLOAT32" in types and types & {"INT8", "INT4"}
            if hybrid and operator.name not in MIXED:
                raise ExportError(
                    f"LiteRT Micro has no {operator.name} of float inputs and int8 "
                    "weights. Write the file with quantize=None or 'int8', not "
                    "'dynamic'"
                )


def _methods(graphs: Iterable[Graph]) -> list[str]:
    """The calls that register the operators, in order of first use."""
    used = dict.fromkeys(operator.name for g in graphs for operator in g.operators)
    return [METHODS.get(name) or _camel(name) for name in used]


def _camel(operator: str) -> str:
    """The name of the method that registers an operator.

    >>> _camel("MAX_POOL_2D"), _camel("FULLY_CONNECTED")
    ('AddMaxPool2D', 'AddFullyConnected')
    """
    words = map(str.capitalize, operator.split("_"))
    return "Add" + "".join(words).replace("2d", "2D")


def _header(report: MicroReport, inputs: list[Tensor], outputs: list[Tensor]) -> str:
    upper = report.name.upper()
    calls = " ".join(f"(resolver).{method}();" for method in report.operators)
    lines = [
        f"/* {report.name}: a model for LiteRT Micro, written by keras_lottery. */",
        f"#ifndef {upper}_H",
        f"#define {upper}_H",
        "",
        "/* The .tflite file. */",
        f"#define {upper}_BYTES {report.bytes}",
        "",
        f"/* tflite::MicroMutableOpResolver<{upper}_OPERATORS> resolver;",
        f"   {upper}_ADD_OPERATORS(resolver) */",
        f"#define {upper}_OPERATORS {len(report.operators)}",
        f"#define {upper}_ADD_OPERATORS(resolver) {calls}",
    ]
    for kind, tensors in (("INPUT", inputs), ("OUTPUT", outputs)):
        for number, tensor in enumerate(tensors):
            prefix = f"#define {upper}_{kind}_{number}"
            lines += ["", f"/* {_plain(str(tensor))} */"]
            lines.append(f"{prefix}_SIZE {tensor.size}")
            lines.append(f"{prefix}_BYTES {tensor.bytes}")
            if tensor.scale:
                lines.append(f"{prefix}_SCALE {tensor.scale:.9e}f")
                lines.append(f"{prefix}_ZERO_POINT ({tensor.zero_point})")
    lines += [
        "",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        f"extern const unsigned char {report.name}[{upper}_BYTES];",
        f"extern const unsigned long {report.name}_length;",
        "#ifdef __cplusplus",
        "}",
        "#endif",
        "",
        "#endif",
        "",
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Makes text safe for a comment in C: only ASCII, and no end of the comment."""
    return text.encode("ascii", "replace").decode().replace("*/", "* /")


def _source(name: str, data: bytes) -> str:
    rows = (data[i : i + 12] for i in range(0, len(data), 12))
    array = "\n".join("  " + ", ".join(f"0x{b:02x}" for b in row) + "," for row in rows)
    return f"""\
/* Written by keras_lottery; see {name}.h. */
#include "{name}.h"

/* LiteRT reads numbers in place: they have to be aligned. */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define MODEL_ALIGNED alignas(16)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define MODEL_ALIGNED _Alignas(16)
#elif defined(__GNUC__) || defined(__clang__)
#define MODEL_ALIGNED __attribute__((aligned(16)))
#elif defined(_MSC_VER)
#define MODEL_ALIGNED __declspec(align(16))
#else
#error "Say how this compiler aligns an array to 16 bytes."
#endif

/* The size is a number, so that the header of another file is an error. */
MODEL_ALIGNED const unsigned char {name}[{len(data)}] = {{
{array}
}};

const unsigned long {name}_length = sizeof({name});
"""
