"""Layers that contain masked layers which their configs do not mention.

Saved models are rebuilt from configs. The configs of Sequential and Functional models
list their layers, with their masked classes. But an attention layer's projections, a
subclassed model's attributes or an LSTM's cell are rebuilt as ordinary layers, and
their masks would be lost. A layer that contains masked layers therefore becomes a
`MaskedInside` of its own class. Its config contains the paths of the masked layers
inside, and it masks them again when it is made from that config.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import keras

from keras_lottery.keras_bridge.internals.graph import is_graph
from keras_lottery.keras_bridge.internals.layers import (
    Hooks,
    children,
    set_class,
    set_untracked,
)
from keras_lottery.keras_bridge.layers.kinds import MASKED_LAYERS, ORDINARY_LAYERS
from keras_lottery.keras_bridge.layers.masked import Masked, mask_layer
from keras_lottery.keras_bridge.layers.names import named_children, walk

_KEY = "keras_lottery"


@keras.saving.register_keras_serializable("keras_lottery")
class MaskedInside(Hooks):
    """Mixin of a layer that contains masked layers; `isinstance` sees its own class.

    Its config is the ordinary layer's, with one more key that holds the class of that
    layer and the paths of the masked layers.
    """

    ordinary_class: ClassVar[type[keras.layers.Layer]]
    # Paths of layers that are to be masked once they exist.
    _missing: tuple[str, ...] = ()
    # Paths of masked layers that had weights when the config was made.
    _built_once: tuple[str, ...] = ()

    # Defined by the layer class that this is mixed into.
    name: str

    def get_config(self) -> dict[str, Any]:
        inside = list(walk(self))
        masked = [path for path, layer in inside if isinstance(layer, Masked)]
        with _ordinary([self, *(layer for _, layer in inside)]):
            config = self.get_config()
        record = {
            "class": _identity(self.ordinary_class),
            "masked": [*masked, *self._missing],
            "built": [path for path, layer in inside if path in masked and layer.built],
        }
        return {**config, _KEY: record}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        record = config.pop(_KEY, None)
        if record is None:
            return cls.ordinary_class.from_config(config)
        # Keras finds the class as it would for an ordinary layer. A clone of a layer of
        # this class is made whether or not the class is registered.
        known = getattr(cls, "ordinary_class", None)
        own = {} if known is None else {keras.saving.get_registered_name(known): known}
        layer = keras.saving.deserialize_keras_object(
            {**record["class"], "config": config}, custom_objects=own
        )
        _mask_inside(layer, record["masked"])
        set_untracked(layer, "_built_once", tuple(record.get("built", ())))
        return layer

    def after_build(self) -> None:
        super().after_build()
        self._mask_missing()

    def build_from_config(self, config: Any) -> None:
        super().build_from_config(config)  # type: ignore[misc]
        self._mask_missing()

    def _mask_missing(self) -> None:
        set_untracked(self, "_missing", _mask_children(self, self._missing))

    def load_own_variables(self, store: Any) -> None:
        self._mask_missing()
        if self._missing:
            raise ValueError(
                f"The masked layers {list(self._missing)} inside '{self.name}' do not "
                "exist yet, and their masks would be lost. Create every layer in "
                "`__init__` or `build`, so that it exists before weights are loaded."
            )
        # Keras would silently load no weights for them.
        unbuilt = [
            path
            for path, layer in walk(self)
            if path in self._built_once and not layer.built
        ]
        if unbuilt:
            raise ValueError(
                f"The masked layers {unbuilt} inside '{self.name}' are not built, and "
                "their masks and weights would be lost. Give "
                f"{class_of(self).__name__} a `build` that builds every layer inside "
                "and, if its `call` takes "
                "several inputs, a `get_build_config` and a `build_from_config` that "
                "know all of their shapes."
            )
        super().load_own_variables(store)  # type: ignore[misc]


def _mask_inside(layer: Any, paths: Iterable[str]) -> None:
    """Masks the layers at these paths, now or as soon as they exist."""
    if is_graph(layer):
        missing = _mask_children(layer, paths)
        if missing:
            raise ValueError(f"Model '{layer.name}' has no layers {list(missing)}.")
        return
    if not isinstance(layer, MaskedInside):
        set_class(layer, _holder_of(type(layer)))
    set_untracked(layer, "_missing", (*layer._missing, *paths))
    # A layer with its own `build` creates or builds its inner layers there, and may
    # require ordinary ones (SpectralNormalization does).
    if layer.built or class_of(layer).build is keras.layers.Layer.build:
        layer._mask_missing()


def _mask_children(parent: Any, paths: Iterable[str]) -> tuple[str, ...]:
    """Masks the layers that exist; returns the paths of those that do not."""
    inside = dict(named_children(parent))
    deeper: dict[str, list[str]] = {}
    missing = []
    for path in paths:
        name, _, rest = path.partition("/")
        if name not in inside:
            missing.append(path)
        elif rest:
            deeper.setdefault(name, []).append(rest)
        elif not isinstance(inside[name], Masked):
            _mask_again(inside[name])
    for name, rests in deeper.items():
        _mask_inside(inside[name], rests)
    return tuple(missing)


def _mask_again(layer: keras.layers.Layer) -> None:
    kind = type(layer)
    if kind not in MASKED_LAYERS:
        raise ValueError(
            f"The layer '{layer.name}' was masked, but {kind.__name__} has no masked "
            f"form here. Call `keras_lottery.register_masked({kind.__name__}, ...)` "
            "before loading."
        )
    mask_layer(layer, MASKED_LAYERS[kind])


_HOLDERS: dict[type[keras.layers.Layer], type[MaskedInside]] = {}


def hold(model: keras.layers.Layer) -> None:
    """Ensures that every masked layer inside is recorded in some config."""
    _hold(model, {})


def _hold(layer: Any, seen: dict[int, bool]) -> bool:
    """Whether the layer is masked or contains masked layers."""
    if id(layer) not in seen:
        holds = any([_hold(child, seen) for child in children(layer)])
        if holds and not is_graph(layer) and not isinstance(layer, MaskedInside):
            set_class(layer, _holder_of(type(layer)))
        seen[id(layer)] = holds or isinstance(layer, Masked)
    return seen[id(layer)]


def release(model: keras.layers.Layer) -> None:
    """Restores the classes that `hold` changed."""
    for layer in [model, *(layer for _, layer in walk(model))]:
        set_class(layer, class_of(layer))


def class_of(layer: Any) -> type[keras.layers.Layer]:
    """Returns the class of a layer, masked or not, without `MaskedInside`."""
    return layer.ordinary_class if isinstance(layer, MaskedInside) else type(layer)


def _holder_of(ordinary_class: type[keras.layers.Layer]) -> type[MaskedInside]:
    if ordinary_class not in _HOLDERS:
        holder = type(
            # Keras names layers, and entries of weights files, after their classes.
            ordinary_class.__name__,
            (MaskedInside, ordinary_class),
            {
                "__doc__": ordinary_class.__doc__,
                "__module__": __name__,
                "ordinary_class": ordinary_class,
            },
        )
        # All share one registered name: the config states the class.
        keras.saving.register_keras_serializable("keras_lottery", "MaskedInside")(
            holder
        )
        _HOLDERS[ordinary_class] = holder
    return _HOLDERS[ordinary_class]


def _identity(layer_class: type[keras.layers.Layer]) -> dict[str, str | None]:
    """Returns the keys of a config by which Keras finds a class again."""
    name = layer_class.__name__
    if getattr(keras.layers, name, None) is layer_class:
        return {"module": "keras.layers", "class_name": name, "registered_name": None}
    return {
        "module": layer_class.__module__,
        "class_name": name,
        "registered_name": keras.saving.get_registered_name(layer_class),
    }


@contextlib.contextmanager
def _ordinary(layers: Iterable[Any]) -> Iterator[None]:
    """Inside, the first layer is not a `MaskedInside` and the others are ordinary."""
    first, *others = layers
    classes = [(layer, type(layer)) for layer in (first, *others)]
    set_class(first, class_of(first))
    for layer in others:
        set_class(layer, ORDINARY_LAYERS.get(class_of(layer), class_of(layer)))
    try:
        yield
    finally:
        for layer, its_class in classes:
            set_class(layer, its_class)
