"""Layers in their places, and the parts that XNNPACK runs all together."""

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
    """What a layer is to XNNPACK's sparse path."""

    START = "starts a sparse part"
    INSIDE = "runs channels-first, in a sparse part"
    END = "ends a sparse part"
    NONE = "becomes part of another layer, or nothing"
    OUTSIDE = "is in no sparse part"


@dataclass(eq=False)
class Step:
    """A layer in one place of a model's graph.

    Attributes:
        path: of the layer.
        layer: the layer.
        sources: the steps that it reads from; `None` for the model's inputs.
        input_shape, output_shape: of the first tensors, `None` where not known.
        role: what it can be.
        reason: why it is no more than that.
        part: what it belongs to, if it runs channels-first.
        readers: how many other steps read what it makes; a model's output is one.
        in_the_way: whether it keeps others from running channels-first.
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
        """The kernel that zeros are counted in, of 1x1 convolutions; masked."""
        if kind_of(self.layer) is layers.SeparableConv2D:
            return backends.current().array(self.layer.pointwise_kernel)
        if kind_of(self.layer) is layers.Conv2D and square(self.layer.kernel_size) == 1:
            return backends.current().array(self.layer.kernel)
        return None

    @property
    def described(self) -> str:
        """Its class, with the size of its kernel and its stride."""
        text = kind_of(self.layer).__name__
        if is_convolution(self.layer):
            text += f" {'x'.join(map(str, self.layer.kernel_size))}"
            stride = square(self.layer.strides)
            text += "" if stride == 1 else f", stride {stride}"
        return text

    @property
    def makes_pixel(self) -> bool:
        """Whether it makes a picture of one pixel."""
        return self.output_shape[1:3] == (1, 1) and len(self.output_shape) == 4

    @property
    def shown(self) -> bool:
        """Whether it computes products, or stands in the way of those that do."""
        has_kernel = any(len(w.shape) > 1 for w in getattr(self.layer, "weights", ()))
        return has_kernel or self.in_the_way


@dataclass(eq=False)
class Part:
    """Steps that XNNPACK can only run channels-first all together.

    Attributes:
        steps: in the order of the graph.
        faults: what keeps XNNPACK from running it channels-first.
        leaks: steps whose outputs leave it other than through its end. XNNPACK does not
            look at them, and hands on channels-first numbers as if they were
            channels-last.
    """

    steps: list[Step] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether it runs sparsely, once there are zeros enough."""
        return not self.faults and not self.leaks

    @property
    def pointwise(self) -> list[Step]:
        """The steps with 1x1 kernels."""
        return [step for step in self.steps if step.kernel is not None]

    def zeros(self) -> float:
        """The share of zeros in its 1x1 kernels."""
        kernels = [kernel for s in self.steps if (kernel := s.kernel) is not None]
        size = sum(kernel.size for kernel in kernels)
        return sum(int((k == 0).sum()) for k in kernels) / size if size else 0.0


def behind(step: Step | None) -> Step | None:
    """The step whose numbers are read, where some steps become part of others."""
    while step is not None and step.role is Role.NONE:
        step = step.sources[0]
    return step


def named(step: Step) -> str:
    """A step for people.

    >>> named(Step("flat", layers.Flatten(), []))
    '`flat` (Flatten)'
    """
    return f"`{step.path}` ({kind_of(step.layer).__name__})"


def kind_of(layer: Any) -> type:
    """A layer's class, or that of the layer it masks."""
    return ORDINARY_LAYERS.get(class_of(layer), class_of(layer))


def is_convolution(layer: Any) -> bool:
    """Whether it is a convolution of pictures of a kind that XNNPACK knows."""
    return kind_of(layer) in CONVOLUTIONS


def square(sizes: tuple[int, int]) -> int:
    """The size that both axes have, or 0 if they differ."""
    return sizes[0] if sizes[0] == sizes[1] else 0
