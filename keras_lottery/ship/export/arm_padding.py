"""Adapts a model's padding so that XNNPACK runs its 1x1 convolutions sparsely."""

import warnings
from collections.abc import Mapping
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
from keras_lottery.keras_bridge.xnnpack import (
    Part,
    Role,
    Step,
    fits_but_for_padding,
    is_convolution,
    named,
    padding_of,
    sparse_layers,
    steps_of,
    wanted_padding,
)


def adapt_for_xnnpack(model: keras.Model) -> keras.Model:
    """Returns a copy whose padding lets XNNPACK run its 1x1 convolutions sparsely.

    Where TensorFlow pads a convolution of stride 2 on one side only (padding "same", or
    `ZeroPadding2D(((0, 1), (0, 1)))` before it), the copy pads it on both sides by
    `ZeroPadding2D`. Shapes and weights stay the same, but *outputs change*: filters
    move by a pixel. Fine-tune the copy before or while it is pruned; a warning names
    the layers whose outputs change. If the image has an odd number of pixels, the copy
    expresses the same padding differently, and no output changes. The copy may also
    change whether `GlobalAveragePooling2D` keeps the axes of the image, which changes
    no output: the layer must drop them before a head of 1x1 convolutions, and keep them
    in squeeze-and-excitation blocks.

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
            "Expected a model whose padding alone keeps ARM from running it sparsely. "
            f"Received: model '{model.name}', in which {_obstacle(steps_of(new))}. See "
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
    """The first reason why a model's 1x1 convolutions do not run sparsely."""
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
    """The changes to make to a model's layers.

    Attributes:
        padding: the new padding, by the `id` of a convolution or of the `ZeroPadding2D`
            before it.
        pooling: whether a pooling layer is to keep the axes of the image, by `id`.
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
        """Makes a pooling layer keep the image's axes if its output rejoins the part.

        Otherwise, as in the head of a classifier, the layer drops the axes, so that the
        part ends there.
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
    """The padding that `keras.applications` uses instead for images of even size."""
    return tuple((side - 1, side) for side, _ in padding)


def _rewritten(model: keras.Model, changes: _Changes) -> keras.Model:
    """A copy of a model with the changes, and with the weights of the model."""
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
