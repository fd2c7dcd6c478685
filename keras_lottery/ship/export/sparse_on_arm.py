"""Tells which convolutions of a model run sparsely on ARM, and why others do not."""

import contextlib
import textwrap
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import keras

from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.internals.graph import has_graph
from keras_lottery.keras_bridge.layers import walk
from keras_lottery.keras_bridge.xnnpack import (
    FEWEST_ZEROS,
    Step,
    can_start,
    is_convolution,
    is_misread,
    parts_of,
    steps_of,
)
from keras_lottery.structured.inline import inline
from keras_lottery.tables import text_table


@dataclass(frozen=True)
class SparseLayer:
    """How a layer runs on ARM.

    Attributes:
        layer: its path.
        kind: its class, with the size of its kernel.
        zeros: the share of zeros in its 1x1 kernel; `None` for other layers.
        sparse: whether LiteRT computes it from the remaining weights only.
        reason: why, or why not.
    """

    layer: str
    kind: str
    zeros: float | None
    sparse: bool
    reason: str


@dataclass(frozen=True)
class SparseReport:
    """The convolutions that LiteRT runs sparsely on ARM; `str()` gives a table.

    Attributes:
        layers: the convolutions and dense layers, and the layers that prevent them from
            running sparsely.
        wrong: why a sparsely encoded file would or may be wrong on ARM, or could not
            be loaded there. `to_litert` writes a dense one then.
    """

    layers: tuple[SparseLayer, ...]
    wrong: tuple[str, ...] = ()

    @property
    def sparse(self) -> list[str]:
        """The layers that run sparsely."""
        return [each.layer for each in self.layers if each.sparse]

    def to_dict(self) -> dict[str, Any]:
        """The report as values that JSON can hold."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [
            [
                each.layer,
                each.kind,
                "-" if each.zeros is None else f"{each.zeros:.1%}",
                "sparse" if each.sparse else "dense",
                each.reason,
            ]
            for each in self.layers
        ]
        header = ["layer", "is", "zeros", "on ARM", "since"]
        pointwise = [each for each in self.layers if each.zeros is not None]
        last = (
            f"{len(self.sparse)} of {len(pointwise)} layers with 1x1 kernels run "
            "sparsely."
        )
        wrong = [
            f"`to_litert` writes a dense file, since a sparse one {each}."
            for each in self.wrong
        ]
        table = text_table(rows, header, {"since": 60})
        return "\n".join([table, *(textwrap.fill(t, 88) for t in [last, *wrong])])


def explain_sparse(model: keras.Model) -> SparseReport:
    """Says which convolutions LiteRT runs sparsely on ARM, and why not the others.

    On ARM (not on x86, where XNNPACK prefers dense kernels), LiteRT runs 1x1
    convolutions of a sparsely encoded float32 file faster the more zeros they have, if
    they lie in a part of the graph that

    - starts with a 3x3 convolution of stride 2 of three channels, padded by 1 on each
      side, and ends with global average pooling;
    - contains in between only 1x1 convolutions of stride 1, depthwise convolutions of
      3x3 or 5x5 (those of stride 2 with `ZeroPadding2D` and "valid", since TensorFlow's
      "same" does not fit), activations, additions and multiplications;
    - passes only the pooled output on to layers outside of it;
    - has more than two thirds of zeros in its 1x1 kernels, taken together.

    `mask_model(model, prunable="xnnpack")` masks the 1x1 convolutions of such parts,
    and `adapt_for_xnnpack` changes the padding of models that miss the pattern only by
    their padding.

    Args:
        model: a Sequential or Functional model, masked or not.

    Raises:
        ValueError: if it is a subclassed model, or not built.

    Reference:
        Elsen et al. 2020, "Fast sparse ConvNets"; `src/subgraph.c` of XNNPACK.

    Example:

    >>> from keras import layers
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     layers.ZeroPadding2D(1),
    ...     layers.Conv2D(4, 3, strides=2, activation="relu", name="stem"),
    ...     layers.Conv2D(8, 1, activation="relu", name="pointwise"),
    ...     layers.GlobalAveragePooling2D(),
    ...     layers.Dense(2, name="head")])
    >>> import keras_lottery as kl
    >>> model = kl.mask_model(model, prunable="xnnpack")
    >>> kl.prune(model, 0.75)
    >>> explain_sparse(model).sparse
    ['pointwise']
    """
    checks.model("model", model)
    steps = steps_of(model)
    shown: dict[int, SparseLayer] = {}
    for step in steps:
        if step.shown and id(step.layer) not in shown:
            shown[id(step.layer)] = _explained(step)
    return SparseReport(tuple(shown.values()), tuple(wrong_on_arm(model)))


def wrong_on_arm(model: keras.Model) -> list[str]:
    """Reasons why a sparsely encoded file of a model would or may be wrong on ARM.

    XNNPACK does not check whether a sparse part has outputs other than that of global
    pooling. It passes these on as channels-first numbers, and the next layer reads them
    as channels-last, or the file cannot be loaded. This was observed with LiteRT 2.3;
    on x86, the files are computed correctly.

    Blocks of layers, such as subclassed models, are opened. A block that stays closed
    is a reason by itself if the model has what a sparse part needs.
    """
    if _hiding(model) and _may_run_sparsely(model):
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Those that stay closed are found here.
            model = inline(model)
        if hidden := _hiding(model):
            names = " and ".join(f"`{path}`" for path in hidden)
            return [f"may be wrong on ARM: the graph inside {names} is not known"]
    if not has_graph(model):
        return []
    steps = steps_of(model)
    return [
        f"would be wrong on ARM: {leak}, from a part that runs sparsely, other than by "
        "global pooling"
        for part in parts_of(steps)
        if is_misread(part, steps)
        for leak in part.leaks
    ]


def _hiding(model: keras.Model) -> list[str]:
    """Returns the layers that have convolutions inside, and no graph of them."""
    return [
        path
        for path, layer in walk(model)
        if not has_graph(layer)
        and any(is_convolution(inner) for _, inner in walk(layer))
    ]


def _may_run_sparsely(model: keras.Model) -> bool:
    """Whether a model has the layers of a sparse part, in whatever order."""
    steps = [Step(path, layer, []) for path, layer in walk(model)]
    kernels = [kernel for step in steps if (kernel := step.kernel) is not None]
    return any(can_start(step.layer) for step in steps) and any(
        (kernel == 0).mean() > FEWEST_ZEROS for kernel in kernels
    )


def _explained(step: Step) -> SparseLayer:
    part, kernel = step.part, step.kernel
    zeros = None if kernel is None else float((kernel == 0).mean())
    sparse = False
    if part is None:
        reason = step.reason
    elif part.faults or part.leaks:
        reason = f"of its part, {(part.faults or part.leaks)[0]}"
    elif not part.pointwise:
        reason = "its part has no 1x1 kernel"
    elif part.zeros() <= FEWEST_ZEROS:
        reason = (
            f"the 1x1 kernels of its part have {part.zeros():.1%} zeros, of more than "
            f"{FEWEST_ZEROS:.1%} that are needed"
        )
    else:
        sparse = kernel is not None
        reason = "a 1x1 kernel in a sparse part"
        if not sparse:
            reason = f"it {step.role.value}"
    return SparseLayer(step.path, step.described, zeros, sparse, reason)
