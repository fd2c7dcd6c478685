"""The smaller network of a ticket that prunes filters, and its place in the whole.

`compact` removes the parts that a trained model does not need. The networks here are
still to be trained, and a unit whose weights are zero now may grow. A unit is therefore
removed only if the masks prune the weights on both sides of it, whatever their values.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

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
from keras_lottery.structured.costs import kernels, uses
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.rebuild import rebuild
from keras_lottery.structured.removal import check_followed
from keras_lottery.structured.rules import Keep, Rule, rule_for, weights_of
from keras_lottery.structured.units import units_of

Places = Mapping[str, np.ndarray]
"""The positions of a smaller variable's entries in the whole, flattened, by name."""


class Cost(NamedTuple):
    """The cost of a network.

    Args:
        parameters: the number of parameters.
        multiply_adds: the multiply-adds of a forward pass, see
            `structured.multiply_adds`.
    """

    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Part:
    """A smaller network, and its place in the whole one.

    Args:
        model: the smaller network, masked and compiled in the same way as the whole
            one, with meaningless weights.
        places: see `Places`; variables that are not cut are left out.
    """

    model: keras.Model
    places: Places

    def cut(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Cuts a state, or masks, to the smaller network."""
        return {
            name: array.ravel()[self.places[name]] if name in self.places else array
            for name, array in arrays.items()
        }

    def put_back(self, state: State, whole: State) -> State:
        """Returns the whole network's state with the smaller one's put into it."""
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
        units: the model's filters; `kept` and `part` use the indices of their groups.
        masked: the names of the weights that have masks.

    Raises:
        ValueError: if the model's layers cannot be followed, if it has no filters to
            prune, or if a layer cannot be made smaller.
    """

    def __init__(self, model: keras.Model) -> None:
        check_followed(model)
        self._whole = strip_masks(model)
        # Random values of which none is zero and no two are equal. With others, the
        # graph would find constants among weights that are still to be trained.
        rng = np.random.default_rng(0)
        for variable in named_variables(self._whole).values():
            if "float" in variable.dtype:
                variable.assign(rng.uniform(1, 2, variable.shape))
        self._graph = Graph(self._whole, rule_for)
        masks = get_masks(model)
        self.units = units_of(self._graph, "filter", masks)
        self.masked = frozenset(masks)
        self._masked = [p for p, layer in walk(model) if isinstance(layer, Masked)]
        self._sizes = {name: mask.shape for name, mask in masks.items()}
        self._check()

    def cost(self, kept: np.ndarray | None = None) -> Cost:
        """Returns the cost of the network of some groups; by default of the whole one.

        Raises:
            ValueError: if sizes of the model's inputs are not known.
        """
        keep: Keep = partial(self._of, self._all if kept is None else kept)
        parameters, multiply_adds = self._fixed
        for rule, name, shape, times in self._numbers:
            # A broadcast array takes no memory until it is cut.
            own = rule.cut(name, np.broadcast_to(np.int8(0), shape), keep)
            parameters += own.size
            multiply_adds += own.size * times * (len(shape) > 1)
        return Cost(parameters, multiply_adds)

    @cached_property
    def _all(self) -> np.ndarray:
        return np.ones(self.units.count, bool)

    @cached_property
    def _uses(self) -> dict[int, int]:
        with warnings.catch_warnings(action="ignore"):  # about layers that stay anyway
            return uses(self._graph)

    @cached_property
    def _numbers(self) -> list[tuple[Rule, str, tuple[int, ...], int]]:
        """The (rule, weight, shape, uses) of all weights whose layers may be cut."""
        return [
            (rule, name, array.shape, self._uses.get(id(rule.layer), 0))
            for rule in self._graph.rules.values()
            if type(rule).cut is not Rule.cut
            for name, array in weights_of(rule.layer).items()
        ]

    @cached_property
    def _fixed(self) -> Cost:
        """The cost of the layers that are never cut."""
        cut = sum(math.prod(shape) for _, _, shape, _ in self._numbers)
        multiply_adds = sum(
            self._uses.get(id(rule.layer), 0) * math.prod(kernel.shape)
            for rule in self._graph.rules.values()
            if type(rule).cut is Rule.cut
            for kernel in kernels(rule.layer)
        )
        return Cost(self._whole.count_params() - cut, multiply_adds)

    @cached_property
    def shrinking(self) -> dict[str, keras.Variable]:
        """The variables that become smaller when filters are removed, by name."""
        variables = named_variables(self._whole)
        return {name: variables[name] for name in self._places(self._few())}

    def layers(self) -> Iterator[tuple[str, Any]]:
        """Yields (path, layer) of the layers that read or make removable channels."""
        groups = np.concatenate(list(self.units.layers.values()))
        for call in self._graph.calls:
            if self._graph.has(call, groups):
                yield self._graph.name(call.layer), call.layer

    def kept(self, masks: Masks) -> np.ndarray:
        """Marks the groups of channels that a ticket has, by index.

        A group is removed if the masks prune all weights that make it and all that read
        it.
        """
        units = self.units
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
        """Returns the smaller network of the groups that a ticket has."""
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
        """Keeps one channel of each tensor, as Keras has no layers of width zero."""
        for call in self._graph.calls:
            for tensor in call.outputs:
                own = self._graph.groups[tensor.atoms]
                if len(own) and not kept[own].any():
                    kept[own[0]] = True
        return kept

    def _few(self) -> np.ndarray:
        """Returns the groups when as few filters as possible are left."""
        none = {name: np.zeros(shape, bool) for name, shape in self._sizes.items()}
        return self.kept(Masks(none))

    def _check(self) -> None:
        """Builds the smallest network, and checks the shapes of its variables."""
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
