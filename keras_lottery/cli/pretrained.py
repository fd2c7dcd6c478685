"""Pre-trained weights for `keras-lottery find`."""

from pathlib import Path

import keras

from keras_lottery.keras_bridge.layers import State, get_state, set_state
from keras_lottery.ship.export.errors import in_short
from keras_lottery.tickets.carry_over import matching


def read_weights(path: Path) -> State:
    """The weights in a .keras file.

    Raises:
        ValueError: if Keras cannot load the file.
    """
    try:
        return get_state(keras.saving.load_model(path, compile=False))
    except Exception as error:
        raise ValueError(
            "argument --weights: expected a .keras file that Keras can load. Received: "
            f"{path}. Keras says: {in_short(error)}"
        ) from error


def give_weights(model: keras.Model, layers: str | list[str], weights: State) -> None:
    """Gives some layers of a model the weights of the same names.

    Args:
        model: the model.
        layers: the name or names of `--pretrained`, or patterns.
        weights: the weights of `--weights`.

    Raises:
        ValueError: if a pattern matches no layer, if the layers have no weights, or if
            one of them has a weight that is not among the others, or is of another
            shape there.
    """
    layers = [layers] if isinstance(layers, str) else layers
    own = get_state(model)
    chosen = matching("--pretrained", model, layers)
    names = [
        name
        for name, array in own.items()
        if name.rpartition("/")[0] in chosen and "float" in array.dtype.name
    ]
    other = [n for n in names if n not in weights or weights[n].shape != own[n].shape]
    if not names:
        raise ValueError(
            "argument --pretrained: expected layers with weights. Received: "
            f"{','.join(layers)}. Name others, such as "
            f"{next(iter(own)).rpartition('/')[0]}."
        )
    if other:
        raise ValueError(
            "argument --pretrained: expected layers whose weights are in the file of "
            f"--weights, in the same shapes. Received: {','.join(layers)}, of which "
            f"the file lacks {other}."
        )
    set_state(model, {**own, **{name: weights[name] for name in names}})
