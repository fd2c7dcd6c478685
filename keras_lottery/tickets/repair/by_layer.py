"""Repair of one layer after the other, each on the outputs of those repaired before."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras.layers import EinsumDense
from scipy.linalg import cho_factor, cho_solve

from keras_lottery import checks
from keras_lottery.keras_bridge.calibration import matrices_of
from keras_lottery.keras_bridge.layer_inputs import (
    call_recorded,
    calls_in_order,
    in_batches_of_inputs,
    readers,
)
from keras_lottery.keras_bridge.layers import State, named_variables
from keras_lottery.keras_bridge.linear import Matrices
from keras_lottery.keras_bridge.shortcuts import Shortcut, shortcuts
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation import largest
from keras_lottery.tickets.grouping import Grouping, InsideWeights, Weights, within
from keras_lottery.tickets.repair.protocol import Repair
from keras_lottery.tickets.snapshot import Snapshot


@dataclass(frozen=True)
class Choice:
    """Chooses masks of a matrix that keep as many weights as a given mask.

    Args:
        grouping: what is pruned together: single weights, or groups inside one matrix.
        mask: the given mask, booleans (inputs, outputs).
        alive: the weights that may be kept, of the same shape.
    """

    grouping: Grouping
    mask: np.ndarray
    alive: np.ndarray

    def end(self, row: int) -> int:
        """Returns the first row from `row` on where a cut divides no group."""
        if isinstance(self.grouping, InsideWeights):
            labels = self.grouping.label(self.mask.shape)
            while row < len(labels) and np.isin(labels[row], labels[row - 1]).any():
                row += 1
        return row

    def best(self, rows: slice, preference: np.ndarray) -> np.ndarray:
        """Returns a mask of some inputs that keeps the weights of largest preference.

        It keeps as many weights as the given mask does in these rows, which must not
        divide a group.
        """
        kept, alive = (
            Masks({"weight": array[rows]}) for array in (self.mask, self.alive)
        )
        some = {"weight": preference[: len(kept["weight"])]}
        return self.grouping.rearrange(kept, some, alive)["weight"]

    def towards(self, share: float, preference: np.ndarray) -> np.ndarray:
        """Returns a mask that prunes a share of the weights that are to be pruned.

        The weights of largest preference stay. Groups are all pruned at once.
        """
        preference = preference[: len(self.mask)]
        if not isinstance(self.grouping, Weights):
            return self.best(slice(0, len(self.mask)), preference)
        alive, kept = (int(np.count_nonzero(m)) for m in (self.alive, self.mask))
        count = alive - round(share * (alive - kept))
        return largest({"weight": preference}, {"weight": self.alive}, count)["weight"]


@dataclass(frozen=True)
class ByLayer(Repair):
    """Keeps each layer's outputs close to what they were before pruning.

    Let X be the layer's inputs in the network that is pruned and repaired up to that
    layer, and Y the layer's outputs in the dense network. A repair minimises
    ‖X V - Y‖² + λ ‖V - W‖² over weights V that are zero where they are pruned. Biases
    are included, as weights of an input that is always 1.

    Layers that lost nothing stay as they are. The last layer of a residual branch makes
    up for the shortcut as well: Y is then the sum of its outputs and the shortcut in
    the dense network, minus the shortcut as it is now. A subclass implements the
    minimisation in `solve`.

    Args:
        damping: λ, as a share of the mean of ‖x_j‖². 0 fits the calibration data only,
            which then need more rows than a layer has inputs.
        choose: whether the repair chooses the weights to keep as it proceeds, as many
            in each layer as the given masks keep.
    """

    damping: float = 0.01
    choose: bool = False

    def __post_init__(self) -> None:
        checks.number("damping", self.damping, 0)
        checks.flag("choose", self.choose)

    @abstractmethod
    def solve(
        self,
        weights: np.ndarray,
        mask: np.ndarray,
        moments: np.ndarray,
        choice: Choice | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the weights V, which are zero outside the mask, and the mask.

        Args:
            weights: U (inputs, outputs), the best weights without a mask. The objective
                is therefore to minimise the trace of (V - U)ᵀ H (V - U). The last input
                may be the constant 1 of the biases.
            mask: booleans of that shape.
            moments: H, XᵀX + λ I, (inputs, inputs).
            choice: chooses another mask; `None` if the mask is to stay.
        """

    def __call__(self, snapshot: Snapshot, masks: Masks) -> State:
        return self.with_masks(snapshot, masks)[0]

    def with_masks(self, snapshot: Snapshot, masks: Masks) -> tuple[State, Masks]:
        before = snapshot.masks
        pruned = [n for n, m in masks.items() if not np.array_equal(m, before[n])]
        x = snapshot.inputs()
        network = _Network(snapshot, {name: masks[name] for name in pruned})
        kinds = within(snapshot.grouping, masks) if self.choose else {}
        chosen = dict(masks)
        network.find_uses(x)
        for name in network.in_order():
            layer = network.layers[name]
            of, grouping = layer.matrices, kinds.get(name)
            # Groups inside weights assume that the last axis is the outputs.
            known = isinstance(grouping, Weights) or of.is_plain
            parts = zip(
                of.of(masks[name]),
                of.of(before[name]),
                layer.with_biases(snapshot.final),
                *network.moments(name, x),
                strict=True,
            )
            groups = [
                self._solved(name, grouping if known else None, *part) for part in parts
            ]
            kept = of.weight(np.stack([m[: of.shape[1]] for _, m in groups]))
            chosen[name] = kept
            network.change(layer.values(np.stack([w for w, _ in groups]), kept))
        return network.changed, Masks(chosen)

    def _solved(
        self,
        name: str,
        grouping: Grouping | None,
        mask: np.ndarray,
        alive: np.ndarray,
        weights: np.ndarray,
        second: np.ndarray,
        targets: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Solves one group of a layer; with a grouping, its mask is chosen again."""
        # The constant of the biases is never pruned.
        full = np.ones(weights.shape, bool)
        full[: len(mask)] = mask
        if not second.any():  # All inputs are zero, so that they tell nothing.
            return weights * full, full
        damping = self.damping * np.diag(second).mean()
        choice = Choice(grouping, mask, alive) if grouping is not None else None
        # Inputs that no output keeps, such as pruned filters, are left out.
        rows = full.any(axis=1) if choice is None else np.ones(len(full), bool)
        moments = second[np.ix_(rows, rows)] + damping * np.eye(int(rows.sum()))
        targets = targets[rows] + damping * weights[rows]
        new, kept = np.zeros_like(weights), np.zeros_like(full)
        try:
            best = cho_solve(cho_factor(moments), targets)
            new[rows], kept[rows] = self.solve(best, full[rows], moments, choice)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                f"The inputs of `{name}` in the calibration data depend on each other, "
                "so that many weights are equally good. Give a damping, such as "
                f"damping=0.01, or more data. Received: {self!r}"
            ) from error
        return new, kept


@dataclass(frozen=True)
class _Layer:
    """A weight and the bias of its layer.

    Args:
        name, matrices: the name of the weight, and its form as matrices.
        bias: the name of the bias, or `None` if there is none with one entry per
            output.
    """

    name: str
    matrices: Matrices
    bias: str | None

    def with_biases(self, state: State) -> np.ndarray:
        """Returns the matrices (groups, inputs + 1, outputs) in double precision."""
        weights = self.matrices.of(state[self.name]).astype("float64")
        if self.bias is None:
            return weights
        groups, _, outputs = self.matrices.shape
        biases = state[self.bias].astype("float64").reshape(groups, 1, outputs)
        return np.concatenate([weights, biases], axis=1)

    def with_constant(self, rows: np.ndarray) -> np.ndarray:
        """Appends the constant 1 of the biases to rows (groups, rows, inputs)."""
        rows = rows.astype("float64")
        if self.bias is None:
            return rows
        return np.pad(rows, ((0, 0), (0, 0), (0, 1)), constant_values=1)

    def values(self, solved: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the arrays of the weight and its bias, from matrices as above."""
        inputs = self.matrices.shape[1]
        weight = self.matrices.weight(solved[:, :inputs])
        values = {self.name: np.where(mask, weight, 0)}
        if self.bias is not None:
            values[self.bias] = solved[:, inputs].ravel()
        return values


class _Network:
    """A masked model that takes the dense and the pruned weights in turn."""

    def __init__(self, snapshot: Snapshot, masks: Mapping[str, np.ndarray]) -> None:
        self.model = snapshot.model
        self.dense = snapshot.final
        self.variables = named_variables(self.model)
        self.readers = readers(self.model)
        of = matrices_of(self.model, masks)
        self.layers = {n: _Layer(n, of[n], self._bias(n, of[n])) for n in masks}
        # The masks in the model stay those of the dense network.
        self.changed: dict[str, np.ndarray] = {
            name: np.where(mask, self.dense[name], 0) for name, mask in masks.items()
        }
        self.uses: dict[str, int] = {}
        self.shortcuts: dict[str, Shortcut] = {}

    def find_uses(self, x: Any) -> None:
        """Finds how often each weight is used, in order, and where branches end."""
        self.uses = calls_in_order(self.model, x)
        sizes = {
            name.rpartition("/")[0]: self.layers[name].matrices.shape[1]
            for name in self.uses
            if name in self.layers and self._is_whole(name)
        }
        self.shortcuts = shortcuts(self.model, sizes)

    def in_order(self) -> list[str]:
        """Returns the names of the pruned weights in the order of their repair.

        This is the order of the layers' calls, except that a layer that makes up for a
        shortcut comes after the shortcut.
        """
        layers = {name: name.rpartition("/")[0] for name in self.uses}
        place = {layer: number for number, layer in enumerate(layers.values())}

        def last(name: str) -> tuple[int, bool]:
            layer = layers[name]
            shortcut = self.shortcuts.get(layer)
            beside = shortcut.beside if shortcut else ()
            last = max(place[one] for one in (layer, *beside))
            return last, last != place[layer]

        return sorted((name for name in self.uses if name in self.layers), key=last)

    def _is_whole(self, name: str) -> bool:
        """Whether a layer's outputs, as rows, are those of its matrix product."""
        layer = self.readers[name][0][0]
        plain = getattr(layer, "data_format", "channels_last") == "channels_last"
        if isinstance(layer, EinsumDense):
            read, _, made = layer.equation.replace(" ", "").partition(",")
            kernel, _, made = made.partition("->")
            plain = read[:-1] == made[:-1] and kernel == read[-1] + made[-1]
        return self.layers[name].matrices.shape[0] == 1 and plain

    def _bias(self, name: str, of: Matrices) -> str | None:
        layers = [layer for layer, _ in self.readers[name]]
        if len(layers) > 1 or not of.biased:
            return None
        bias = layers[0].bias  # type: ignore[attr-defined]
        return next(n for n, v in self.variables.items() if v is bias)

    def change(self, values: Mapping[str, np.ndarray]) -> None:
        """Gives the pruned network new values of some variables from now on."""
        for name, array in values.items():
            shaped = array.reshape(self.variables[name].shape)
            self.changed[name] = shaped.astype(self.dense[name].dtype)

    def moments(self, name: str, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns XᵀX and XᵀY for a layer's inputs X and its desired outputs Y.

        Their shapes are (groups, inputs, inputs) and (groups, inputs, outputs).
        """
        layer = self.layers[name]
        groups, inputs, outputs = layer.matrices.shape
        size = inputs + (layer.bias is not None)
        second, cross = np.zeros((2, groups, size, size))
        shortcut = self.shortcuts.get(name.rpartition("/")[0])
        missing = np.zeros((groups, size, outputs))
        for batch in in_batches_of_inputs(self.model, x):
            (pruned, one), (dense, other) = [
                self._read(state, name, shortcut, batch)
                for state in (self.changed, self.dense)
            ]
            error = None if shortcut is None else _as_rows(shortcut, other - one)
            for now, before in zip(pruned, dense, strict=True):
                for rows, unpruned in zip(now, before, strict=True):
                    read = layer.with_constant(rows).swapaxes(1, 2)
                    second += read @ read.swapaxes(1, 2)
                    cross += read @ layer.with_constant(unpruned)
                    if error is not None:
                        own, error = np.split(error, [read.shape[2]])
                        missing += read @ own
        return second, cross @ layer.with_biases(self.dense) + missing

    def _read(
        self, state: State, name: str, shortcut: Shortcut | None, batch: Any
    ) -> tuple[list[Iterator[np.ndarray]], np.ndarray]:
        """Returns the rows that a layer reads from a batch in each of its calls.

        The second value is what the layer's outputs are added to.
        """
        for changed in self.changed:
            self.variables[changed].assign(np.asarray(state[changed]))
        found: list[Iterator[np.ndarray]] = []
        added = np.zeros(0)

        def record(name: str, of: Matrices | Shortcut, given: Any) -> None:
            nonlocal added
            if isinstance(of, Shortcut):
                added = of.others(given)
            else:
                found.append(of.read(given))

        listened: dict[str, Any] = {name: self.readers[name]}
        uses = self.uses[name]
        if shortcut is not None:
            listened[shortcut.add.name] = [(shortcut.add, shortcut)]
            uses += 1
        call_recorded(self.model, batch, listened, record, uses)
        return found, added


def _as_rows(shortcut: Shortcut, error: np.ndarray) -> np.ndarray:
    """Returns the error (rows, outputs) that a layer's outputs have to make up for.

    The error is zero for an output that the following normalisation scales to almost
    zero.
    """
    scale = np.broadcast_to(shortcut.scale, error.shape[-1:])
    known = np.abs(scale) > 1e-3 * np.abs(scale).max(initial=0)
    rows = error.reshape(-1, error.shape[-1]).astype("float64")
    return np.where(known, rows / np.where(known, scale, 1), 0)
