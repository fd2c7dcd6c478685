"""The parts of a model's graph that XNNPACK can run sparsely."""

import keras
from keras import layers

from keras_lottery.checks import refuse
from keras_lottery.keras_bridge.graph import Use, run
from keras_lottery.keras_bridge.internals.graph import function_name, has_graph
from keras_lottery.keras_bridge.layers.names import walk
from keras_lottery.keras_bridge.xnnpack.roles import role_of
from keras_lottery.keras_bridge.xnnpack.steps import (
    CONVOLUTIONS,
    Part,
    Role,
    Step,
    behind,
    kind_of,
    named,
)

FEWEST_ZEROS = 2 / 3
"""A part runs sparsely if more than this share of its 1x1 kernels is zero."""


WITHOUT_MEANS = (
    *(layers.Dense, layers.Flatten, layers.Reshape, layers.Softmax),
    *(layers.MaxPooling2D, layers.AveragePooling2D, layers.Concatenate),
    *(layers.PReLU, layers.UpSampling2D, layers.Rescaling),
)
"""Layers outside of parts that do not compute a mean over the image."""


def steps_of(model: keras.Model) -> list[Step]:
    """Returns the steps of a model in order, each with its role, and its part if any.

    Raises:
        ValueError: if the model is a subclassed model, whose graph is not known.
    """
    if not has_graph(model):
        remedy = (
            "Others do not tell which layer reads which: pass "
            "`kl.inline(keras.Model(inputs, model(inputs)))`, with a `keras.Input`."
        )
        refuse("model", "a Sequential or Functional model", model, remedy)
    steps = _read_graph(model)
    for step in steps:
        step.role, step.reason = role_of(step)
    _gather(steps)
    return steps


def sparse_layers(model: keras.Model) -> set[int]:
    """Returns the `id` of each layer whose 1x1 kernel XNNPACK can run sparsely."""
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
            step.reason = "it computes with a constant"  # An example is `x + 3`.
        steps.append(step)
        return [step] * len(use.output_shapes)

    outputs = run(model, [None] * len(model.inputs), call)
    for step in {id(s): s for s in outputs if s is not None}.values():
        step.readers += 1
    return steps


def _gather(steps: list[Step]) -> None:
    """Puts the steps into parts, and finds the faults of the parts."""
    inside = [s for s in steps if s.role in (Role.START, Role.INSIDE, Role.END)]
    readers: dict[int, list[Step]] = {id(step): [] for step in inside}
    for step in inside:
        step.part = Part([step])
        if step.role is Role.START:
            continue  # It reads channels-last tensors.
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
    """Returns how many steps read a step, also behind steps that merge into it."""
    through = [s for s in steps if s.role is Role.NONE and step in s.sources]
    return step.readers - len(through) + sum(_readers(s, steps) for s in through)


def _join(into: Part, part: Part) -> None:
    into.steps += part.steps
    into.faults += part.faults
    for step in part.steps:
        step.part = into


def parts_of(steps: list[Step]) -> list[Part]:
    """Returns the parts of a model in order."""
    return list({id(s.part): s.part for s in steps if s.part is not None}.values())


def is_misread(part: Part, steps: list[Step]) -> bool:
    """Whether a part runs sparsely and its outputs are read in the wrong axis order.

    XNNPACK only looks for parts if there is a mean that can end one. It is not known
    whether other layers compute a mean; this function assumes that they do.
    """
    means = any(
        step.role is Role.END
        or (
            step.role is Role.OUTSIDE
            and kind_of(step.layer) not in (*WITHOUT_MEANS, *CONVOLUTIONS)
            and not isinstance(step.layer, layers.BatchNormalization)
        )
        for step in steps
    )
    leaks = bool(part.leaks) and not part.faults
    return means and leaks and part.zeros() > FEWEST_ZEROS
