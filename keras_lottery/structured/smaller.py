"""The smaller network that a ticket of filters is, and its place in the whole one.

`compact` removes what a trained model does not need. Here a training is still to come:
what goes is what the masks prune on both sides, whatever the weights are, since a unit
that is zero now may grow.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np

from keras_lottery.keras_bridge.layers import (
    State,
    get_masks,
    mask_model,
    named_variables,
    strip_masks,
    walk,
)
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.keras_bridge.layers.masked import Masked
from keras_lottery.masks import Masks
from keras_lottery.structured.channels import Tensor
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.rebuild import rebuild
from keras_lottery.structured.removal import check_followed
from keras_lottery.structured.rules import Rule, rule_for, weights_of
from keras_lottery.structured.scratch import multiply_adds
from keras_lottery.structured.units import Units, units_of

Places = Mapping[str, np.ndarray]
"""Where the numbers of smaller variables lie in the whole, flattened ones, by name."""


@dataclass(frozen=True)
class Part:
    """A smaller network, and its place in the whole one.

    Args:
        model: the smaller network, masked and compiled as the whole one is, with
            weights of no meaning.
        places: see `Places`; variables that are whole are left out.
    """

    model: keras.Model
    places: Places

    def cut(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the smaller network has of a state, or of masks."""
        return {
            name: array.ravel()[self.places[name]] if name in self.places else array
            for name, array in arrays.items()
        }

    def put_back(self, state: State, whole: State) -> State:
        """The whole network's state, with that of the smaller one where it lies."""
        made = dict(state)
        for name, place in self.places.items():
            made[name] = whole[name].copy()
            made[name].flat[place] = state[name]
        return made


class Smaller:
    """Makes the smaller networks of a masked model's tickets.

    Args:
        model: a masked Sequential or Functional model. It is left untouched.

    Attributes:
        masked: the names of the weights that have masks.

    Raises:
        ValueError: if it cannot be followed, if it has no filters to prune, or if a
            layer cannot be made smaller.
    """

    def __init__(self, model: keras.Model) -> None:
        check_followed(model)
        self._whole = strip_masks(model)
        # Numbers of no meaning, of which none is zero and no two are equal: otherwise
        # the graph would find constants among what is still to be trained.
        rng = np.random.default_rng(0)
        for variable in named_variables(self._whole).values():
            if "float" in variable.dtype:
                variable.assign(rng.uniform(1, 2, variable.shape))
        self._graph = Graph(self._whole, rule_for)
        masks = get_masks(model)
        self._units: Units = units_of(self._graph, "filter", masks)
        self.masked = frozenset(masks)
        self._masked = [p for p, layer in walk(model) if isinstance(layer, Masked)]
        self._sizes = {name: mask.shape for name, mask in masks.items()}
        self._check()

    @cached_property
    def multiply_adds(self) -> int:
        """Those of the whole network, see `structured.multiply_adds`."""
        return multiply_adds(self._whole)

    @cached_property
    def shrinking(self) -> dict[str, keras.Variable]:
        """The variables of which filters may take a part, by name."""
        variables = named_variables(self._whole)
        return {name: variables[name] for name in self._places(self._few())}

    def layers(self) -> Iterator[tuple[str, Any]]:
        """(path, layer) of those that read or make what filters may take."""
        groups = np.concatenate(list(self._units.layers.values()))
        for call in self._graph.calls:
            for tensor in (*call.inputs, *call.outputs):
                if np.isin(self._graph.groups[tensor.atoms], groups).any():
                    yield self._graph.name(call.layer), call.layer
                    break

    def kept(self, masks: Masks) -> np.ndarray:
        """Which groups of channels a ticket has, by number.

        One goes if its masks prune all that makes it and all that reads it.
        """
        units = self._units
        kept = np.ones(units.count, bool)
        for groups in units.layers.values():
            kept[groups] = False
        for groups in units.unmasked.values():
            kept[groups] = True
        for slices in units.slices:
            rows = np.moveaxis(masks[slices.weight], slices.axis, 0)
            alive = rows.reshape(len(rows), -1).any(axis=1)
            np.logical_or.at(kept, slices.groups, alive)
        return self._with_one(kept)

    def part(self, kept: np.ndarray) -> Part:
        """The smaller network of the groups that a ticket has."""
        small = rebuild(self._graph, partial(self._of, kept))
        compile_alike(self._whole, small)
        paths = {id(layer): path for path, layer in walk(small)}
        chosen = lambda layer: paths.get(id(layer)) in self._masked  # noqa: E731
        return Part(mask_model(small, chosen), self._places(kept))

    def _places(self, kept: np.ndarray) -> dict[str, np.ndarray]:
        names = {id(v): name for name, v in named_variables(self._whole).items()}
        keep = partial(self._of, kept)
        places = {}
        for rule in self._graph.rules.values():
            if type(rule).cut is Rule.cut:
                continue
            for attribute, array in weights_of(rule.layer).items():
                numbers = np.arange(array.size).reshape(array.shape)
                own = rule.cut(attribute, numbers, keep)
                if own.shape != array.shape:
                    places[names[id(getattr(rule.layer, attribute))]] = own
        return places

    def _of(self, kept: np.ndarray, tensor: Tensor) -> np.ndarray:
        return kept[self._graph.groups[tensor.atoms]]

    def _with_one(self, kept: np.ndarray) -> np.ndarray:
        """Keras has no layers of width zero."""
        for call in self._graph.calls:
            for tensor in call.outputs:
                own = self._graph.groups[tensor.atoms]
                if len(own) and not kept[own].any():
                    kept[own[0]] = True
        return kept

    def _few(self) -> np.ndarray:
        """The groups, if as few filters were left as can be."""
        none = {name: np.zeros(shape, bool) for name, shape in self._sizes.items()}
        return self.kept(Masks(none))

    def _check(self) -> None:
        """Makes the smallest network, and compares its variables."""
        kept = self._few()
        part = self.part(kept)
        found = {n: tuple(v.shape) for n, v in named_variables(part.model).items()}
        expected = {
            name: part.places[name].shape if name in part.places else tuple(v.shape)
            for name, v in named_variables(self._whole).items()
        }
        if found != expected:
            other = sorted(n for n, _ in found.items() ^ expected.items())
            raise ValueError(
                f"Expected a model whose layers become smaller with their filters. "
                f"Received: model '{self._whole.name}', in which {other} do not."
            )
