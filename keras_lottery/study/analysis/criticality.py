"""Measures which layers of a trained net matter, by re-initialising each of them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.engines.objective import Objective
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.graph import parent
from keras_lottery.keras_bridge.layers import (
    State,
    get_state,
    named_variables,
    redraw,
    walk,
)
from keras_lottery.study.analysis.evaluation import (
    check_state,
    evaluate_states,
    judged,
)

if TYPE_CHECKING:
    import pandas as pd


def layer_criticality(
    model: keras.Model,
    checkpoints: Mapping[Hashable, State],
    data: Any,
    replicates: int = 1,
    seed: int = 0,
    layers: Mapping[str, Sequence[str]] | None = None,
    objective: str | Objective | None = None,
) -> "pd.DataFrame":
    """Resets one layer of a trained net at a time, and measures how much is lost.

    Each layer is re-initialised to its values at each checkpoint, and re-randomised,
    which means drawn anew from the model's initialisers; the other layers stay trained.
    A layer is critical if the net fails without its trained weights.

    Args:
        model: a compiled model with the trained weights, masked or not; it is left as
            it was. Its masks stay, and pruned weights are zero at every checkpoint.
        checkpoints: states by label, such as `Checkpoints().states` by epoch, or
            `{"initial": dense.weights}` of a stored search's `dense = ticket(0)`.
        data: (x, y), a `PyDataset` or a `tf.data.Dataset` to measure on.
        replicates: how often each layer is re-randomised.
        seed: the seed of the re-randomisation.
        layers: groups of variables that are reset together: a name for each group, and
            the names of its variables (see `layers.named_variables`). By default, each
            layer with a weight of two or more dimensions forms a group, with its biases
            and the normalisation that reads its output.
        objective: same as in `LotteryTicketSearch`.

    Returns:
        A row for each layer and checkpoint, and for each re-randomisation, whose
        checkpoint is `"random"`: `layer`, `checkpoint`, `replicate`, `loss`,
        `accuracy` (or another metric, by its name) and `drop`, by how much the trained
        model is better.

    Raises:
        ValueError: if the model is not compiled or does not report the objective, or a
            checkpoint or layer is not the model's.

    Reference:
        Zhang et al., [Are all layers created equal?](https://arxiv.org/abs/1902.01996),
        2019, section 2 ("re-initialization and re-randomization robustness").

    Example::

        epochs = kl.callbacks.Checkpoints(epochs=[0, 1, 10])
        model.fit(x, y, epochs=20, callbacks=[epochs])
        table = kl.analysis.layer_criticality(model, epochs.states, (x_test, y_test))
        table.pivot_table("drop", index="layer", columns="checkpoint")
    """
    import pandas as pd

    keras_checks.compiled("model", model)
    checks.count("replicates", replicates)
    checks.seed("seed", seed)
    form = "states by label, such as `Checkpoints().states`"
    checks.instance("checkpoints", checkpoints, Mapping, form)
    if layers is not None:
        form = "names of variables by layer"
        if not checks.instance("layers", layers, Mapping, form):
            checks.refuse("layers", form, layers)
    if "random" in checkpoints:
        raise ValueError("Expected `checkpoints` under other names than 'random'.")
    for label, state in checkpoints.items():
        check_state(f"checkpoints[{label!r}]", state, model)
    trained = get_state(model)
    check_state("model", trained, model)
    groups = layer_groups(model) if layers is None else layers
    for layer, names in groups.items():
        checks.names("layers", names)
        if unknown := sorted(set(names) - trained.keys()):
            raise ValueError(
                f"Expected `layers` to name variables of the model, {sorted(trained)}. "
                f"Received: {unknown} for {layer!r}"
            )
    goal = judged(model, data, objective)
    sources: list[tuple[Hashable, int, State]] = [
        (label, 0, state) for label, state in checkpoints.items()
    ]
    for replicate in range(replicates):
        entropy = np.random.SeedSequence([seed, replicate])
        drawn = redraw(model, int(entropy.generate_state(1)[0]))
        sources.append(("random", replicate, drawn))
    cells = [(layer, *source) for layer in groups for source in sources]
    states = (
        {**trained, **{name: state[name] for name in groups[layer]}}
        for layer, _, _, state in cells
    )
    whole = evaluate_states(model, [trained], data, goal)[0][1]
    measured = evaluate_states(model, states, data, goal)
    return pd.DataFrame(
        {
            "layer": layer,
            "checkpoint": label,
            "replicate": replicate,
            "loss": loss,
            goal.metric: value,
            "drop": goal.gain(whole, value),
        }
        for (layer, label, replicate, _), (loss, value) in zip(
            cells, measured, strict=True
        )
    )


def layer_groups(model: keras.Model) -> dict[str, list[str]]:
    """The variables of each layer, and those of the normalisation that follows it.

    >>> model = keras.Sequential([
    ...     keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
    ...     keras.layers.BatchNormalization(name="norm"),
    ...     keras.layers.Dense(2, name="output")])
    >>> list(layer_groups(model)), len(layer_groups(model)["hidden"])
    (['hidden', 'output'], 6)
    """
    paths = {id(layer): path for path, layer in walk(model)}
    of_layer: dict[str, list[str]] = {}
    kernels = set()
    for name, variable in named_variables(model).items():
        if "float" in variable.dtype:
            path = name.rpartition("/")[0]
            of_layer.setdefault(path, []).append(name)
            if len(variable.shape) >= 2:
                kernels.add(path)
    groups = {path: list(names) for path, names in of_layer.items() if path in kernels}
    for path, layer in walk(model):
        if path in of_layer and path not in kernels:
            source = _source(layer, paths, kernels)
            groups.setdefault(source or path, []).extend(of_layer[path])
    return groups


def _source(layer: Any, paths: dict[int, str], kernels: set[str]) -> str | None:
    """The layer with a kernel from which a layer reads, directly or through others."""
    while (layer := parent(layer)) is not None:
        if (path := paths.get(id(layer))) in kernels:
            return path
    return None
