"""Steps, which are uses of layers, and the parts that XNNPACK runs as a whole."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from keras import layers

from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.graph import Shape
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.keras_bridge.layers.kinds import ORDINARY_LAYERS

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)


class Role(Enum):
    """The role of a layer in XNNPACK's sparse path."""

    START = "starts a sparse part"
    INSIDE = "runs channels-first, in a sparse part"
    END = "ends a sparse part"
    NONE = "becomes part of another layer, or nothing"
    OUTSIDE = "is in no sparse part"


@dataclass(eq=False)
class Step:
    """One use of a layer in a model's graph.

    Attributes:
        path: the path of the layer.
        layer: the layer.
        sources: the steps that it reads from; `None` for the model's inputs.
        input_shape, output_shape: the shapes of the first tensors; `None` for an
            unknown size.
        role: the role that the step can have.
        reason: why it has no better role.
        part: the part that it belongs to, if it can run channels-first.
        readers: how many other steps read its output; a model's output counts as one.
        in_the_way: whether it prevents other steps from running channels-first.
    """

    path: str
    layer: Any
    sources: list["Step | None"]
    input_shape: Shape = ()
    output_shape: Shape = ()
    role: Role = Role.OUTSIDE
    reason: str = ""
    part: "Part | None" = None
    readers: int = 0
    in_the_way: bool = False

    @property
    def kernel(self) -> np.ndarray | None:
        """The masked kernel of a 1x1 convolution, or `None` for other layers."""
        if kind_of(self.layer) is layers.SeparableConv2D:
            return backends.current().array(self.layer.pointwise_kernel)
        if kind_of(self.layer) is layers.Conv2D and square(self.layer.kernel_size) == 1:
            return backends.current().array(self.layer.kernel)
        return None

    @property
    def described(self) -> str:
        """The layer's class, with the size of its kernel and its stride."""
        text = kind_of(self.layer).__name__
        if is_convolution(self.layer):
            text += f" {'x'.join(map(str, self.layer.kernel_size))}"
            stride = square(self.layer.strides)
            text += "" if stride == 1 else f", stride {stride}"
        return text

    @property
    def makes_pixel(self) -> bool:
        """Whether it returns an image of one pixel."""
        return self.output_shape[1:3] == (1, 1) and len(self.output_shape) == 4

    @property
    def shown(self) -> bool:
        """Whether reports show it: it has a kernel, or it is in the way of others."""
        has_kernel = any(len(w.shape) > 1 for w in getattr(self.layer, "weights", ()))
        return has_kernel or self.in_the_way


@dataclass(eq=False)
class Part:
    """Steps that XNNPACK can only run channels-first as a whole.

    Attributes:
        steps: the steps, in the order of the graph.
        faults: the reasons why XNNPACK cannot run the part channels-first.
        leaks: steps whose outputs leave the part other than through its end. XNNPACK
            does not check for them, and passes channels-first values on as if they were
            channels-last.
    """

    steps: list[Step] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the part runs sparsely once it has enough zeros."""
        return not self.faults and not self.leaks

    @property
    def pointwise(self) -> list[Step]:
        """The steps with 1x1 kernels."""
        return [step for step in self.steps if step.kernel is not None]

    def zeros(self) -> float:
        """The share of zeros in the part's 1x1 kernels."""
        kernels = [kernel for s in self.steps if (kernel := s.kernel) is not None]
        size = sum(kernel.size for kernel in kernels)
        return sum(int((k == 0).sum()) for k in kernels) / size if size else 0.0


def behind(step: Step | None) -> Step | None:
    """Returns the step whose output is read, where some steps merge into others."""
    while step is not None and step.role is Role.NONE:
        step = step.sources[0]
    return step


def named(step: Step) -> str:
    """Returns a readable name of a step.

    >>> named(Step("flat", layers.Flatten(), []))
    '`flat` (Flatten)'
    """
    return f"`{step.path}` ({kind_of(step.layer).__name__})"


def kind_of(layer: Any) -> type:
    """Returns a layer's class, or the ordinary class of a masked layer."""
    return ORDINARY_LAYERS.get(class_of(layer), class_of(layer))


def is_convolution(layer: Any) -> bool:
    """Whether a layer is a convolution of images of a kind that XNNPACK supports."""
    return kind_of(layer) in CONVOLUTIONS


def square(sizes: tuple[int, int]) -> int:
    """Returns the size that both axes have, or 0 if they differ."""
    return sizes[0] if sizes[0] == sizes[1] else 0
