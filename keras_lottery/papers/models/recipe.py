"""The recipe by which a paper trains a model, and how to compile with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import keras
from keras import ops

from keras_lottery import checks
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.layers.convert import Prunable, check_prunable

Builder = Callable[..., keras.Model]
RATES = "shares to prune by name or pattern of a layer"


@dataclass(frozen=True)
class Recipe:
    """The training settings that a paper gives for a model.

    Args:
        optimizer: A Keras optimizer's name.
        learning_rate: The optimizer's learning rate.
        batch_size: Examples per step.
        steps: Steps (optimizer updates) of one training.
        rates: For each layer name or pattern, the share of the layer's remaining
            weights to prune at each level; 0 for layers that are not pruned. No layer
            may match two of them.
        prunable: The layers to mask, same as in `mask_model`, if the paper prunes other
            layers than `mask_model` masks by default.
        eval_freq: Steps between two evaluations on the validation data.
        jit_compile: Same as in `keras.Model.compile`. XLA makes dense networks faster
            everywhere, but convolutions up to four times slower on CPUs. Recipes of
            convolutional networks therefore keep Keras's `"auto"`, which does not use
            XLA if TensorFlow has only CPUs. On torch, whose compiler needs a C++
            compiler and minutes, it is always `"auto"`, which does not compile.
        steps_per_execution: Same as in `keras.Model.compile`; it divides `eval_freq`.
            On torch, where Keras only executes single steps, it is 1.
        momentum: That of the optimizer `"sgd"`.
        weight_decay: With the optimizer `"sgd"`, λ of the penalty λ/2 ‖w‖². It is
            decoupled from the gradient and scaled as momentum would scale it: λ / (1 -
            momentum) times the learning rate. With another optimizer, it is that
            optimizer's own `weight_decay`: λ times the learning rate.
        drops: Steps at which the learning rate is divided by ten.
        warm_up: Steps over which the learning rate rises linearly from zero.
        linear_decay: Whether the learning rate falls linearly to zero over all steps.
        augment: Whether training crops and mirrors the images, as `augmentation` does.
    """

    optimizer: str
    learning_rate: float
    batch_size: int
    steps: int
    rates: Mapping[str, float]
    prunable: Prunable = None
    eval_freq: int = 100
    jit_compile: bool | Literal["auto"] = "auto"
    steps_per_execution: int = 1
    momentum: float = 0.0
    weight_decay: float | None = None
    drops: tuple[int, ...] = ()
    warm_up: int = 0
    linear_decay: bool = False
    augment: bool = False

    def __post_init__(self) -> None:
        keras_checks.optimizer_name("optimizer", self.optimizer)
        checks.number("learning_rate", self.learning_rate, above=0)
        for name in ("batch_size", "steps", "eval_freq", "steps_per_execution"):
            checks.count(name, getattr(self, name), 1)
        for rate in checks.instance("rates", self.rates, Mapping, RATES).values():
            checks.fraction("rates", rate)
        check_prunable(self.prunable)
        checks.choice("jit_compile", self.jit_compile, (True, False, "auto"))
        checks.fraction("momentum", self.momentum)
        if self.weight_decay is not None:
            checks.number("weight_decay", self.weight_decay, 0)
        _check_schedule(self.drops, self.warm_up)
        checks.flag("linear_decay", self.linear_decay)
        checks.flag("augment", self.augment)

    @property
    def left_alone(self) -> tuple[str, ...]:
        """The names or patterns of the layers that the paper does not prune.

        >>> from keras_lottery import models
        >>> models.recipe("resnet_20").left_alone
        ('shortcut_*', 'output')
        """
        return tuple(pattern for pattern, rate in self.rates.items() if not rate)


@keras.saving.register_keras_serializable(package="keras_lottery")
class Steps(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate with optional warm-up, drops to a tenth, and linear decay.

    Args:
        learning_rate: The highest rate.
        drops: Steps at which the rate is divided by ten.
        warm_up: Steps over which it rises linearly from zero.
        end: The step at which it reaches zero by linear decay; by default, it does not
            decay.

    Reference:
        Frankle & Carbin 2019, section 4 and figure 2.

    Example:

    >>> schedule = Steps(0.1, drops=(20, 30), warm_up=10)
    >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 20, 30)]
    [0.0, 0.05, 0.1, 0.01, 0.001]
    """

    def __init__(
        self,
        learning_rate: float,
        drops: Sequence[int] = (),
        warm_up: int = 0,
        end: int | None = None,
    ) -> None:
        super().__init__()
        checks.number("learning_rate", learning_rate, above=0)
        _check_schedule(drops, warm_up)
        if end is not None:
            checks.count("end", end, 1)
        self.learning_rate = learning_rate
        self.drops = tuple(drops)
        self.warm_up = warm_up
        self.end = end

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = self.learning_rate * ops.ones_like(step)
        if self.warm_up:
            rate = ops.minimum(rate, rate * step / self.warm_up)
        for drop in self.drops:
            rate = ops.where(step >= drop, 0.1 * rate, rate)
        if self.end is not None:
            rate = ops.maximum(0.0, rate * (1 - step / self.end))
        return rate

    def get_config(self) -> dict[str, Any]:
        """The arguments, as a dictionary."""
        return {
            "learning_rate": self.learning_rate,
            "drops": self.drops,
            "warm_up": self.warm_up,
            "end": self.end,
        }


def _check_schedule(drops: Sequence[int], warm_up: int) -> None:
    for drop in checks.sequence("drops", drops, "a list of steps"):
        checks.count("drops", drop)
    checks.count("warm_up", warm_up)


def build(
    builder: Builder,
    recipe: Recipe,
    input_shape: tuple[int, ...],
    classes: int,
    **compiling: Any,
) -> keras.Model:
    """Builds a classifier with the augmentation of its recipe, and compiles it.

    Args:
        builder: `(input_shape, classes) -> model`, with an argument `augment` if the
            recipe augments.
        recipe: The recipe.
        input_shape, classes: Arguments of the builder.
        compiling: `optimizer` and `learning_rate`, see `compile_model`.

    Returns:
        The compiled model.

    Example:

    >>> import functools
    >>> from keras_lottery import models
    >>> builder = functools.partial(models.vgg, (1, 1), 4)
    >>> model = build(builder, models.recipe("vgg_19"), (8, 8, 3), 10)
    >>> [layer.name for layer in model.layers[:3]]
    ['move', 'mirror', 'conv_1']
    """
    check_recipe(recipe)
    checks.function("builder", builder, "a function (input_shape, classes) -> model")
    check_images(input_shape, classes)
    augment = {"augment": True} if recipe.augment else {}
    return compile_model(builder(input_shape, classes, **augment), recipe, **compiling)


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    optimizer: str | keras.Optimizer | None = None,
    learning_rate: float
    | keras.optimizers.schedules.LearningRateSchedule
    | None = None,
) -> keras.Model:
    """Compiles a classifier that outputs logits, by its recipe.

    Args:
        model: The model, which is compiled in place.
        recipe: Its recipe.
        optimizer: A name, or an optimizer, which is used as it is; by default that of
            the recipe.
        learning_rate: A number, to which the drops and warm-up of the recipe apply, or
            a schedule, which is used as it is; by default that of the recipe.

    Returns:
        The model.

    Raises:
        ValueError: if the optimizer is unknown, or if it is an object and a learning
            rate is given as well.

    Example:

    >>> from keras_lottery import models
    >>> recipe = models.recipe("lenet_300_100")
    >>> model = models.compile_model(models.lenet_300_100(), recipe)
    >>> model.optimizer.name
    'adam'
    """
    keras_checks.model("model", model)
    check_recipe(recipe)
    kinds = keras.optimizers.schedules.LearningRateSchedule | None
    if not isinstance(learning_rate, kinds):
        learning_rate = checks.number("learning_rate", learning_rate, above=0)
    if isinstance(optimizer, keras.Optimizer):
        if learning_rate is not None:
            raise ValueError(
                "Expected learning_rate=None beside an optimizer object, which has "
                f"its own. Received: learning_rate={learning_rate}. Leave it out, or "
                f"name the optimizer: optimizer={optimizer.name!r}."
            )
    else:
        name = recipe.optimizer if optimizer is None else optimizer
        checks.text("optimizer", name)
        rate = recipe.learning_rate if learning_rate is None else learning_rate
        end = recipe.steps if recipe.linear_decay else None
        if isinstance(rate, Real) and (recipe.drops or recipe.warm_up or end):
            rate = Steps(float(rate), recipe.drops, recipe.warm_up, end)
        # It has a name, since Keras would number it by a counter of the process.
        config = {"name": name, "learning_rate": rate}
        momentum = recipe.momentum if name.lower() == "sgd" else 0.0
        if momentum:
            config["momentum"] = momentum
        if recipe.weight_decay:
            config["weight_decay"] = recipe.weight_decay / (1 - momentum)
        optimizer = keras_checks.optimizer("optimizer", name, config)
    on_torch = keras.backend.backend() == "torch"
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile="auto" if on_torch else recipe.jit_compile,
        steps_per_execution=1 if on_torch else recipe.steps_per_execution,
    )
    return model


def check_recipe(recipe: Recipe) -> None:
    """Raises ValueError unless it is a recipe."""
    checks.instance("recipe", recipe, Recipe, "a `Recipe`, as `models.recipe` gives it")


def check_images(input_shape: Sequence[int], classes: int) -> None:
    """Raises ValueError unless an image classifier can have these sizes."""
    form = "the shape of an image, such as (height, width, channels)"
    check_sizes("input_shape", input_shape, form)
    checks.count("classes", classes, 1)


def check_sizes(
    name: str, shape: Sequence[int], form: str, dimensions: int | None = None
) -> None:
    """Raises ValueError unless it is a shape with this number of dimensions."""
    known = isinstance(shape, tuple | list) and shape
    if not known or dimensions not in (None, len(shape)):
        checks.refuse(name, form, shape)
    for size in shape:
        checks.count(name, size, 1)
