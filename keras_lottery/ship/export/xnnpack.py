"""Sparse convolutions on ARM: what of a model runs so, and models that fit."""

import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import layers

from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.graph import input_layers
from keras_lottery.keras_bridge.internals.graph import has_graph
from keras_lottery.keras_bridge.internals.randomness import undrawn
from keras_lottery.keras_bridge.layers import (
    get_masks,
    get_state,
    is_masked,
    set_state,
    walk,
)
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.keras_bridge.layers.copying import clone, own_objects, remade
from keras_lottery.keras_bridge.layers.xnnpack import (
    FEWEST_ZEROS,
    Part,
    Role,
    Step,
    fits_but_for_padding,
    is_convolution,
    is_misread,
    named,
    padding_of,
    parts_of,
    sparse_layers,
    steps_of,
    wanted_padding,
)
from keras_lottery.tables import text_table


@dataclass(frozen=True)
class SparseLayer:
    """What becomes of a layer on ARM.

    Attributes:
        layer: its path.
        kind: its class, with the size of its kernel.
        zeros: the share of zeros in its 1x1 kernel; `None` for other layers.
        sparse: whether LiteRT computes it with the weights that are left.
        reason: why, or why not.
    """

    layer: str
    kind: str
    zeros: float | None
    sparse: bool
    reason: str


@dataclass(frozen=True)
class SparseReport:
    """What LiteRT runs sparsely of a model's convolutions on ARM; `str()` is a table.

    Attributes:
        layers: the convolutions and dense layers, and what stands in their way.
        wrong: why a sparsely encoded file would answer wrongly on ARM, or could not be
            loaded there. `to_litert` writes a dense one then.
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
            f"A sparse file would be wrong on ARM, so that `to_litert` writes a dense "
            f"one: {each}."
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
    - has nothing between but 1x1 convolutions of stride 1, depthwise ones of 3x3 or 5x5
      (of stride 2 with `ZeroPadding2D` and "valid": TensorFlow's "same" does not fit),
      activations, additions and multiplications;
    - hands nothing on to layers outside of it but what is pooled;
    - has more than two thirds of zeros in its 1x1 kernels, taken together.

    `mask_model(model, prunable="xnnpack")` masks the 1x1 convolutions of such parts,
    and `adapt_for_xnnpack` changes the padding of models that miss the pattern by that.

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
    """Why a sparsely encoded file of a model answers wrongly on ARM, if it does.

    XNNPACK does not look at what leaves a sparse part other than by global pooling. It
    hands on channels-first numbers, and the next layer reads them as channels-last, or
    the file cannot be loaded. Seen with LiteRT 2.3; files on x86 are right.

    Of a subclassed model, whose graph is not known, nothing can be told.
    """
    if not has_graph(model):
        return []
    steps = steps_of(model)
    return [
        f"{leak}, from a part that runs sparsely, other than by global pooling"
        for part in parts_of(steps)
        if is_misread(part, steps)
        for leak in part.leaks
    ]


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


def adapt_for_xnnpack(model: keras.Model) -> keras.Model:
    """Returns a copy whose padding lets XNNPACK run its 1x1 convolutions sparsely.

    Where TensorFlow pads a convolution of stride 2 on one side only (padding "same", or
    `ZeroPadding2D(((0, 1), (0, 1)))` before it), the copy pads it on both sides by
    `ZeroPadding2D`. Shapes and weights stay, but *outputs change*: filters are moved by
    a pixel. Fine-tune the copy before or while it is pruned; a warning names the layers
    that changed so. Where the picture has an odd number of pixels, nothing changes but
    how it is written. Nor does any output change where the copy says otherwise whether
    `GlobalAveragePooling2D` keeps the axes: it is not to before a head of 1x1
    convolutions, and is to in squeeze-and-excitation blocks.

    Args:
        model: a Sequential or Functional model, masked or not; it is left untouched.

    Raises:
        ValueError: if the model would not run sparsely on ARM for other reasons, which
            the error names, or is a subclassed one.

    Example:

    >>> from keras import layers
    >>> model = keras.Sequential([
    ...     keras.Input((9, 9, 3)),
    ...     layers.Conv2D(4, 3, 2, "same", activation="relu", name="stem"),
    ...     layers.Conv2D(8, 1, activation="relu", name="pointwise"),
    ...     layers.GlobalAveragePooling2D()])
    >>> [layer.name for layer in adapt_for_xnnpack(model).layers][:3]
    ['stem_pad', 'stem', 'pointwise']
    """
    checks.model("model", model)
    changes = _Changes(steps_of(model))
    new = _rewritten(model, changes)
    if not sparse_layers(new):
        raise ValueError(
            "Expected a model that runs sparsely on ARM but for its padding. Received: "
            f"model '{model.name}', in which {_obstacle(steps_of(new))}. See "
            "`explain_sparse(model)`."
        )
    if changes.moved:
        warnings.warn(
            f"Outputs change: these now pad on both sides: "
            f"{', '.join(changes.moved)}. Fine-tune the model.",
            stacklevel=2,
        )
    return new


def _obstacle(steps: list[Step]) -> str:
    """What keeps a model's 1x1 convolutions from running sparsely; the first thing."""
    pointwise = [step for step in steps if step.kernel is not None]
    if not pointwise:
        return "there is no 1x1 convolution"
    for step in pointwise:
        if isinstance(step.part, Part) and (step.part.faults or step.part.leaks):
            problem = (step.part.faults or step.part.leaks)[0]
            culprit = next(
                (s for s in steps if s.part is None and named(s) in problem), None
            )
            return problem + (f": {culprit.reason}" if culprit else "")
    return f"{named(pointwise[0])} is in no part: {pointwise[0].reason}"


class _Changes:
    """What is to be changed of a model's layers.

    Attributes:
        padding: by the `id` of a convolution or of the `ZeroPadding2D` before it.
        pooling: whether a pooling layer is to keep the axes of the picture, by `id`.
        moved: the layers whose outputs change.
    """

    def __init__(self, steps: list[Step]) -> None:
        self.padding: dict[int, Any] = {}
        self.pooling: dict[int, bool] = {}
        self.moved: list[str] = []
        for step in steps:
            if is_convolution(step.layer):
                self._pad(step)
            elif step.role is Role.END:
                self._pool(step, steps)

    def _pad(self, step: Step) -> None:
        wanted, given = wanted_padding(step.layer), padding_of(step)
        if given == wanted or fits_but_for_padding(step):
            return
        if given == "same":
            self.padding[id(step.layer)] = wanted
            height, width = step.input_shape[1:3]
            even = not (height and height % 2 and width and width % 2)
        elif given == _one_sided(wanted):
            source = step.sources[0]
            assert source is not None
            self.padding[id(source.layer)] = wanted
            even = True
        else:
            return
        if even:
            self.moved.append(step.path)

    def _pool(self, end: Step, steps: list[Step]) -> None:
        """Keeps the axes of a picture of one pixel that comes back into the part.

        It drops them where nothing comes back from behind it, as in the head of a
        classifier, so that the part ends there.
        """
        behind_it = [end]
        for step in steps:
            if any(source in behind_it for source in step.sources):
                behind_it.append(step)
        returns = any(x not in behind_it for s in behind_it[1:] for x in s.sources)
        readers = [step for step in steps if end in step.sources]
        pixels = all(
            isinstance(step.layer, layers.Reshape) and step.makes_pixel
            for step in readers
        )
        if returns and pixels and not end.layer.keepdims:
            self.pooling[id(end.layer)] = True
        convolved = any(is_convolution(step.layer) for step in behind_it)
        if not returns and convolved and end.layer.keepdims:
            self.pooling[id(end.layer)] = False


def _one_sided(padding: Any) -> Any:
    """What `keras.applications` pads by where the size is even."""
    return tuple((side - 1, side) for side, _ in padding)


def _rewritten(model: keras.Model, changes: _Changes) -> keras.Model:
    """A copy of a model with other padding, and the weights of the model."""
    made: dict[int, Any] = {}
    around: dict[int, tuple[Any, Any]] = {}
    taken = {layer.name for _, layer in walk(model)}

    def copy(layer: Any) -> Any:
        if id(layer) in made:
            return made[id(layer)]
        before: Any = None
        after: Any = None
        config: Mapping[str, Any] = {}
        if has_graph(layer):
            made[id(layer)] = build(layer)
            return made[id(layer)]
        if id(layer) in changes.padding and is_convolution(layer):
            config = {"padding": "valid"}
            name = _free(f"{layer.name}_pad", taken)
            before = layers.ZeroPadding2D(changes.padding[id(layer)], name=name)
        elif id(layer) in changes.padding:
            config = {"padding": changes.padding[id(layer)]}
        elif id(layer) in changes.pooling:
            config = {"keepdims": changes.pooling[id(layer)]}
            if not config["keepdims"]:
                name = _free(f"{layer.name}_shape", taken)
                after = layers.Reshape((1, 1, -1), name=name)
        new = made[id(layer)] = remade(layer, lambda own: {**own, **config})
        around[id(new)] = (before, after)
        return new

    def call(new: Any, *args: Any, **kwargs: Any) -> Any:
        before, after = around.get(id(new), (None, None))
        if before is not None:
            args = (before(args[0]), *args[1:])
        outputs = new(*args, **kwargs)
        return outputs if after is None else after(outputs)

    def build(model: keras.Model) -> keras.Model:
        if not isinstance(model, keras.Sequential):
            return clone(model, copy, call=call)
        steps = []
        for layer in model.layers:
            new = copy(layer)
            before, after = around.get(id(new), (None, None))
            steps += [step for step in (before, new, after) if step is not None]
        (first,) = input_layers(model)
        inputs = type(first)(**first.get_config()).output
        return keras.Sequential([inputs, *steps], name=model.name)

    with keras.saving.custom_object_scope(own_objects(model)), undrawn():
        new = build(model)
    set_state(new, get_state(model), get_masks(model) if is_masked(model) else None)
    for _, layer in walk(model):
        if id(layer) in made:
            made[id(layer)].trainable = layer.trainable
    compile_alike(model, new)
    return new


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
