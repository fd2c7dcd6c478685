"""The parts of a model that XNNPACK runs sparsely, by XNNPACK's own rules.

On ARM, LiteRT's XNNPACK computes 1x1 convolutions with the weights that are left, if it
can keep a whole part of the graph channels-first: from a 3x3 convolution of stride 2,
which turns a picture of three channels around, to global average pooling. Between them
there may be nothing but the layers that have such a kernel. Source: `src/subgraph.c` of
XNNPACK, `xnn_check_nchw_compatibility` and `xnn_subgraph_rewrite_for_nchw`.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_lottery.checks import refuse
from keras_lottery.keras_bridge import backends
from keras_lottery.keras_bridge.graph import Shape, Use, run
from keras_lottery.keras_bridge.internals.graph import function_name, has_graph
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.keras_bridge.layers.kinds import ORDINARY_LAYERS
from keras_lottery.keras_bridge.layers.names import walk

FEWEST_ZEROS = 2 / 3
"""A part runs sparsely if more than this share of its 1x1 kernels is zero."""


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
        if _kind(self.layer) is layers.SeparableConv2D:
            return backends.current().array(self.layer.pointwise_kernel)
        if _kind(self.layer) is layers.Conv2D and _square(self.layer.kernel_size) == 1:
            return backends.current().array(self.layer.kernel)
        return None

    @property
    def described(self) -> str:
        """Its class, with the size of its kernel and its stride."""
        text = _kind(self.layer).__name__
        if is_convolution(self.layer):
            text += f" {'x'.join(map(str, self.layer.kernel_size))}"
            stride = _square(self.layer.strides)
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


def steps_of(model: keras.Model) -> list[Step]:
    """The steps of a model in their order, each with its role, and its part if any.

    Raises:
        ValueError: if it is a subclassed model, whose graph is not known.
    """
    if not has_graph(model):
        remedy = "Others do not tell which layer reads which."
        refuse("model", "a Sequential or Functional model", model, remedy)
    steps = _read_graph(model)
    for step in steps:
        step.role, step.reason = _role(step)
    _gather(steps)
    return steps


def sparse_layers(model: keras.Model) -> set[int]:
    """The `id` of each layer with a 1x1 kernel that XNNPACK can run sparsely."""
    return {
        id(step.layer)
        for step in steps_of(model)
        if step.part is not None and step.part.fits and step.kernel is not None
    }


def _read_graph(model: keras.Model) -> list[Step]:
    paths = {id(layer): path for path, layer in walk(model)}
    steps: list[Step] = []

    def call(use: Use, sources: list[Step | None]) -> list[Step]:
        path = paths.get(id(use.layer), getattr(use.layer, "name", "?"))
        shapes = (use.input_shapes or [()])[0], use.output_shapes[0]
        step = Step(path, use.layer, list(sources), *shapes)
        for source in {id(s): s for s in sources if s is not None}.values():
            source.readers += 1
        if function_name(use.layer) and len(use.input_shapes) < 2:
            step.reason = "it computes with a constant"  # As `x + 3` does.
        steps.append(step)
        return [step] * len(use.output_shapes)

    outputs = run(model, [None] * len(model.inputs), call)
    for step in {id(s): s for s in outputs if s is not None}.values():
        step.readers += 1
    return steps


def _gather(steps: list[Step]) -> None:
    """Puts the steps into parts, and finds what is wrong with them."""
    inside = [s for s in steps if s.role in (Role.START, Role.INSIDE, Role.END)]
    readers: dict[int, list[Step]] = {id(step): [] for step in inside}
    for step in inside:
        step.part = Part([step])
        if step.role is Role.START:
            continue  # It takes whatever it reads as it is.
        sources = [behind(source) for source in step.sources]
        for source in {id(s): s for s in sources}.values():
            if source is None or source.part is None:
                what = "the model's input"
                if source is not None:
                    what, source.in_the_way = named(source), True
                step.part.faults.append(f"{named(step)} reads {what}")
                continue
            readers[id(source)].append(step)
            if source.part is not step.part:
                _join(source.part, step.part)
    for step in inside:
        within = len(readers[id(step)])
        others = _readers(step, steps) - within
        if not others or (step.role is Role.END and not within):
            continue
        away = [s for s in steps if s.part is None and s.role is not Role.NONE]
        away = [s for s in away if step in map(behind, s.sources)]
        for each in away:
            each.in_the_way = True
        to = " and ".join(map(named, away)) or "the model's output"
        problem = f"{named(step)} hands on to {to}"
        if step.part is not None:
            (step.part.faults if within else step.part.leaks).append(problem)


def _readers(step: Step, steps: list[Step]) -> int:
    """How many steps read a step, those that become part of it looked through."""
    through = [s for s in steps if s.role is Role.NONE and step in s.sources]
    return step.readers - len(through) + sum(_readers(s, steps) for s in through)


def _join(into: Part, part: Part) -> None:
    into.steps += part.steps
    into.faults += part.faults
    for step in part.steps:
        step.part = into


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
    return f"`{step.path}` ({_kind(step.layer).__name__})"


CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)

IDENTITIES = (
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.ActivityRegularization,
    layers.Identity,
)
"""Nothing, once training is over."""

ACTIVATIONS = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "gelu", "sigmoid", "tanh"),
    *("silu", "hard_silu"),
}
"""Functions that XNNPACK has for any order of the axes."""

WITHOUT_MEANS = (
    *(layers.Dense, layers.Flatten, layers.Reshape, layers.Softmax),
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.Concatenate),
    *(layers.PReLU, layers.UpSampling2D, layers.Rescaling),
)
"""Layers outside of parts that are computed without a mean over the picture."""


def _role(step: Step) -> tuple[Role, str]:
    layer, kind = step.layer, _kind(step.layer)
    if step.reason:
        return Role.OUTSIDE, step.reason
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return Role.OUTSIDE, "its data_format is not 'channels_last'"
    if kind in IDENTITIES or (
        kind is layers.Reshape and step.input_shape == step.output_shape
    ):
        return Role.NONE, ""
    if kind is layers.BatchNormalization:
        return _normalizes(step)
    if kind is layers.ZeroPadding2D:
        return _pads(step)
    if kind in CONVOLUTIONS:
        return _convolution(step)
    if kind in (layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Activation):
        return _activation(layer, kind)
    if kind in (layers.Add, layers.Multiply) or function_name(layer) in (
        "Add",
        "Multiply",
    ):
        return Role.INSIDE, ""
    if kind is layers.GlobalAveragePooling2D:
        return Role.END, ""
    return Role.OUTSIDE, f"XNNPACK has no channels-first {kind.__name__}"


def _kind(layer: Any) -> type:
    return ORDINARY_LAYERS.get(class_of(layer), class_of(layer))


def _activation(layer: Any, kind: type) -> tuple[Role, str]:
    if kind is layers.ReLU and (layer.negative_slope or layer.threshold):
        return Role.OUTSIDE, "its slope and threshold are not those of a plain ReLU"
    if kind is layers.ReLU and layer.max_value not in (None, 6):
        return Role.OUTSIDE, f"its max_value={layer.max_value:g} becomes a constant"
    if kind is layers.ELU and layer.alpha != 1:
        return Role.OUTSIDE, f"its alpha={layer.alpha:g} becomes a constant"
    if kind is layers.Activation and _function(layer) not in ACTIVATIONS:
        return Role.OUTSIDE, f"its activation is {_function(layer)!r}"
    return Role.INSIDE, ""


def _function(layer: Any) -> str:
    return str(getattr(layer.activation, "__name__", type(layer.activation).__name__))


def _normalizes(step: Step) -> tuple[Role, str]:
    """It becomes part of the convolution right before it, if that has no other use."""
    source = behind(step.sources[0])
    if (
        source is not None
        and is_convolution(source.layer)
        and _function(source.layer) == "linear"
        and step.sources[0] is not None
        and step.sources[0].readers == source.readers == 1
    ):
        return Role.NONE, ""
    return Role.OUTSIDE, "there is no convolution right before it to become part of"


def _pads(step: Step) -> tuple[Role, str]:
    """It becomes part of the convolution that reads it, if that is the only one."""
    if step.readers == 1:
        return Role.NONE, ""
    return Role.OUTSIDE, "several layers read it"


def is_convolution(layer: Any) -> bool:
    """Whether it is a convolution of pictures of a kind that XNNPACK knows."""
    return _kind(layer) in CONVOLUTIONS


def _square(sizes: tuple[int, int]) -> int:
    return sizes[0] if sizes[0] == sizes[1] else 0


def padding_of(step: Step) -> Any:
    """What stands around the picture that a convolution of stride 2 reads.

    `((top, bottom), (left, right))`, or `"same"` where TensorFlow chooses.
    """
    if step.layer.padding == "same":
        size = _square(step.layer.kernel_size)
        # At stride 1, it is the same on each side.
        even = _square(step.layer.strides) == 1 and size % 2
        return ((size // 2,) * 2,) * 2 if even else "same"
    source = step.sources[0]
    if source is not None and _kind(source.layer) is layers.ZeroPadding2D:
        return tuple(map(tuple, source.layer.padding)) if source.readers == 1 else "no"
    return ((0, 0), (0, 0))


def wanted_padding(layer: Any) -> Any:
    """The padding that XNNPACK has a kernel for.

    >>> wanted_padding(layers.DepthwiseConv2D(5, 2))
    ((2, 2), (2, 2))
    """
    return ((_square(layer.kernel_size) // 2,) * 2,) * 2


def fits_but_for_padding(step: Step) -> str:
    """Why XNNPACK has no channels-first kernel, whatever the padding; or nothing."""
    layer, kind = step.layer, _kind(step.layer)
    size, stride = _square(layer.kernel_size), _square(layer.strides)
    if _square(layer.dilation_rate) != 1:
        return "it is dilated"
    if kind is layers.Conv2D:
        if layer.groups != 1:
            return "it has groups"
        if size == 1:
            return "" if stride == 1 else "a 1x1 convolution needs a stride of 1"
        if (size, stride, int(layer.kernel.shape[-2])) == (3, 2, 3):
            return ""
        return (
            "of convolutions that are not 1x1, only one of 3x3, stride 2 and three "
            "input channels can start a part"
        )
    if layer.depth_multiplier != 1:
        return "its depth_multiplier is not 1"
    if size not in (3, 5) or stride not in (1, 2):
        return "depthwise kernels are 3x3 or 5x5, of stride 1 or 2"
    return ""


def _convolution(step: Step) -> tuple[Role, str]:
    layer = step.layer
    reason = fits_but_for_padding(step)
    if not reason and padding_of(step) != wanted_padding(layer):
        size = _square(layer.kernel_size) // 2
        given = padding_of(step)
        said = "'same' at stride 2" if given == "same" else f"{given}"
        reason = (
            f"its padding is {said}, where XNNPACK needs {size} on each side: "
            f"`ZeroPadding2D({size})` and 'valid'"
        )
    if not reason and _function(layer) not in ACTIVATIONS:
        reason = f"its activation is {_function(layer)!r}"
    if reason:
        return Role.OUTSIDE, reason
    starts = _kind(layer) is layers.Conv2D and _square(layer.kernel_size) == 3
    return (Role.START if starts else Role.INSIDE), ""


def parts_of(steps: list[Step]) -> list[Part]:
    """The parts of a model, in their order."""
    return list({id(s.part): s.part for s in steps if s.part is not None}.values())


def is_misread(part: Part, steps: list[Step]) -> bool:
    """Whether a part runs sparsely and hands on numbers in another order than read.

    XNNPACK only begins to look for parts if there is a mean to end one. Whether layers
    that are not known to it compute one, nothing tells: it is taken that they do.
    """
    means = any(
        step.role is Role.END
        or (
            step.role is Role.OUTSIDE
            and _kind(step.layer) not in (*WITHOUT_MEANS, *CONVOLUTIONS)
            and not isinstance(step.layer, layers.BatchNormalization)
        )
        for step in steps
    )
    leaks = bool(part.leaks) and not part.faults
    return means and leaks and part.zeros() > FEWEST_ZEROS
