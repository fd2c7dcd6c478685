"""How a model of a paper is trained: the recipe, and compiling by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import keras


@dataclass(frozen=True)
class Recipe:
    """The training settings that a paper gives for a model.

    Args:
        optimizer: A Keras optimizer's name.
        learning_rate: The optimizer's learning rate.
        batch_size: Examples per step.
        steps: Steps (optimizer updates) of one training.
        rates: Layer name or pattern to the share of the layer's remaining weights
            that is pruned at each level. No layer matches two of them.
        eval_freq: Steps between two evaluations on the validation data.
        jit_compile: As in `keras.Model.compile`. XLA makes dense networks faster
            everywhere, and convolutions up to four times slower on CPUs: recipes
            of convolutional networks keep Keras's `"auto"`, which leaves XLA out
            when TensorFlow has CPUs alone.
        steps_per_execution: As in `keras.Model.compile`; it divides `eval_freq`.
    """

    optimizer: str
    learning_rate: float
    batch_size: int
    steps: int
    rates: Mapping[str, float]
    eval_freq: int = 100
    jit_compile: bool | Literal["auto"] = "auto"
    steps_per_execution: int = 1


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    optimizer: str | keras.Optimizer | None = None,
    learning_rate: float
    | keras.optimizers.schedules.LearningRateSchedule
    | None = None,
) -> keras.Model:
    """Compiles a classifier that outputs logits as its recipe says.

    Args:
        model: The model, compiled in place.
        recipe: Its recipe.
        optimizer: A name, or an optimizer used as it is; by default the recipe's.
        learning_rate: A number or a schedule; by default the recipe's.

    Returns:
        The model.

    Raises:
        ValueError: if the optimizer is unknown, or an object beside which a learning
            rate is given.

    Example:

    >>> from keras_lottery import models
    >>> recipe = models.recipe("lenet_300_100")
    >>> model = models.compile_model(models.lenet_300_100(), recipe)
    >>> model.optimizer.name
    'adam'
    """
    if isinstance(optimizer, keras.Optimizer):
        if learning_rate is not None:
            raise ValueError(
                "Expected learning_rate=None beside an optimizer object, which has "
                f"its own. Received: learning_rate={learning_rate}. Leave it out, or "
                f"name the optimizer: optimizer={optimizer.name!r}."
            )
    else:
        name = optimizer or recipe.optimizer
        rate = recipe.learning_rate if learning_rate is None else learning_rate
        # Named, as Keras would number it by a counter of the process.
        config = {"name": name, "learning_rate": rate}
        try:
            optimizer = keras.optimizers.get({"class_name": name, "config": config})
        except ValueError as error:
            raise ValueError(
                "Expected `optimizer` to be the name of a Keras optimizer, such as "
                f"'adam', 'adamw', 'sgd', or an object. Received: optimizer={name!r}"
            ) from error
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=recipe.jit_compile,
        steps_per_execution=recipe.steps_per_execution,
    )
    return model
