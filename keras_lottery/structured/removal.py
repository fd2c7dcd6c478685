"""`compact`: a model without the channels that masks or zeros have made dead."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, overload

import keras
import numpy as np

from keras_lottery.checks import flag
from keras_lottery.keras_bridge import checks
from keras_lottery.keras_bridge.internals.graph import has_graph
from keras_lottery.keras_bridge.layers import is_masked, strip_masks
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.keras_bridge.layers.inside import class_of
from keras_lottery.structured.channels import Tensor
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.rebuild import rebuild
from keras_lottery.structured.rules import (
    Attention,
    Keep,
    Linear,
    Lookup,
    Rule,
    rule_for,
)


@dataclass(frozen=True)
class CompactReport:
    """What `compact` removed; `str()` formats it as readable lines.

    Attributes:
        parameters_before: the parameters of the model without its masks.
        parameters_after: the parameters of the smaller model.
        widths: the number of channels before and after, by the path of the layer that
            makes them.
        heads: the number of heads before and after, by the path of the attention layer.
        kept: dead channels that stay, and why, by the path of the layer.
        not_followed: layers and operations around which all channels stay, with their
            place and the reason. `register_rule` adds a rule for your own layer class.
    """

    parameters_before: int
    parameters_after: int
    widths: Mapping[str, tuple[int, int]]
    heads: Mapping[str, tuple[int, int]]
    kept: Mapping[str, str]
    not_followed: tuple[str, ...]

    def __str__(self) -> str:
        share = self.parameters_after / max(self.parameters_before, 1)
        lines = [
            f"parameters  {self.parameters_before:,} -> {self.parameters_after:,} "
            f"({share:.1%})"
        ]
        lines += [
            f"  {path}: {before} -> {after} channels"
            for path, (before, after) in self.widths.items()
            if before != after
        ]
        lines += [
            f"  {path}: {before} -> {after} heads"
            for path, (before, after) in self.heads.items()
            if before != after
        ]
        lines += [f"  {path}: {reason}" for path, reason in self.kept.items()]
        lines += [f"  not followed: {layer}" for layer in self.not_followed]
        return "\n".join(lines)


@overload
def compact(
    model: keras.Model, return_report: Literal[False] = False
) -> keras.Model: ...


@overload
def compact(
    model: keras.Model, return_report: Literal[True]
) -> tuple[keras.Model, CompactReport]: ...


def compact(
    model: keras.Model, return_report: bool = False
) -> keras.Model | tuple[keras.Model, CompactReport]:
    """Returns a smaller model of ordinary layers with the same outputs.

    Units and filters are removed if nothing reads them, or if they are constant because
    they read nothing; such a constant is added to the biases of the layers that read
    it. This propagates through the whole graph: a unit that only dead units read is
    dead too. Layers, their names and their order stay, and so do the model's inputs and
    outputs.

    Attention heads are removed if their values or outputs have no weights. If heads of
    queries share keys and values, this must hold for all of them.

    A constant that cannot be removed exactly stays, and the report names it. This
    happens in front of a convolution with `padding="same"` (whose padding is zero, not
    that constant), beside live channels of an addition or a maximum, and in front of
    layers of an unknown class. Each layer keeps at least one channel. The outputs are
    the same in inference; in training a normalisation computes new statistics.

    Args:
        model: a built Sequential or Functional model, masked or with exact zeros in
            its weights; it may have shared layers and nested models. It is left
            untouched; if it is compiled, the smaller one is compiled in the same way,
            with a fresh optimizer.
        return_report: whether to return a `CompactReport` as well.

    Returns:
        The smaller model, or `(model, report)`.

    Raises:
        ValueError: if the model is not built or is a subclassed model.

    Example:

    >>> import keras_lottery as kl
    >>> model = kl.mask_model(kl.models.lenet_300_100(seed=0))
    >>> kl.prune(model, 0.5, granularity="filter")
    >>> small, report = kl.compact(model, return_report=True)
    >>> print(report)
    parameters  266,610 -> 125,810 (47.2%)
      hidden_1: 300 -> 150 channels
      hidden_2: 100 -> 50 channels
    """
    flag("return_report", return_report)
    plain = plain_copy(model)
    graph = Graph(plain, rule_for)
    groups = graph.keep()

    def keep(tensor: Tensor) -> np.ndarray:
        return groups[graph.groups[tensor.atoms]]

    small = rebuild(graph, keep)
    compile_alike(plain, small)
    if not return_report:
        return small
    return small, CompactReport(
        parameters_before=plain.count_params(),
        parameters_after=small.count_params(),
        widths={
            path: (len(kept), int(kept.sum()))
            for path, rule in makers(graph).items()
            for kept in [keep(rule.calls[0].outputs[0])]
        },
        heads={
            graph.name(rule.layer): (len(rule.alive), int(rule.alive.sum()))
            for rule in graph.rules.values()
            if isinstance(rule, Attention)
        },
        kept=_kept(graph, keep),
        not_followed=tuple(graph.blocks()),
    )


def plain_copy(model: keras.Model) -> keras.Model:
    """Returns a masked model's copy with zeros instead of masks, or else the model.

    If a layer has no `get_config`, as in a subclass of your own, the result is a copy
    as well, made from the config of the whole model.

    Raises:
        ValueError: if the model's layers cannot be followed.
    """
    check_followed(model)
    as_it_is = not is_masked(model) and all(map(_has_config, model.layers))
    return model if as_it_is else strip_masks(model)


def _has_config(layer: keras.layers.Layer) -> bool:
    if has_graph(layer):
        return all(map(_has_config, layer.layers))
    try:
        layer.get_config()
    except NotImplementedError:
        return False
    return True


def check_followed(model: keras.Model) -> None:
    """Raises ValueError if the layers of a model cannot be followed."""
    checks.model("model", model)
    if not has_graph(model):
        raise ValueError(
            "Expected a Sequential or Functional model. Received: model "
            f"'{model.name}' of class {class_of(model).__name__}, whose `call` may do "
            "anything. Make a Functional model of what it does: "
            "`x = keras.Input(shape)`, `keras.Model(x, model.call(x))`."
        )


def makers(graph: Graph) -> dict[str, Rule]:
    """Returns the rules of the layers that make new channels, by path."""
    return {
        graph.name(rule.layer): rule
        for rule in graph.rules.values()
        if isinstance(rule, Linear | Lookup)
    }


def _kept(graph: Graph, keep: Keep) -> dict[str, str]:
    """Returns why dead channels stay, by the layer that makes them."""
    reasons = _reasons(graph)
    kept = {}
    for path, rule in makers(graph).items():
        outputs = [call.outputs[0] for call in rule.calls]
        dead = np.all([t.constant | ~t.needed for t in outputs], axis=0)
        dead &= keep(outputs[0])
        if not dead.any():
            continue
        numbers = np.unique(graph.groups[outputs[0].atoms[dead]])
        why = {reason for number in numbers for reason in reasons.get(number, ())}
        if not why and not any(tensor.needed.any() for tensor in outputs):
            why = {"a layer has one channel at least"}
        text = "; ".join(sorted(why)) or "they are tied to channels that are needed"
        count = int(np.count_nonzero(dead))
        kept[path] = f"{count} dead channel{'s' * (count > 1)} kept: {text}"
    return kept


def _reasons(graph: Graph) -> dict[int, set[str]]:
    """Returns the reasons that constants stay in the model, by group."""
    reasons: dict[int, set[str]] = {}

    def note(tensor: Tensor, channels: np.ndarray, reason: str) -> None:
        for number in np.unique(graph.groups[tensor.atoms[channels]]):
            reasons.setdefault(number, set()).add(reason)

    for call in graph.calls:
        rule = graph.rules[id(call.layer)]
        reason = rule.reason or "its calls read different constants"
        for tensor, channels in zip(call.inputs, rule.stuck(call), strict=True):
            note(tensor, channels, f"in {graph.name(call.layer)}, {reason}")
    for tensor in graph.outputs:
        note(tensor, tensor.constant, "the model returns them")
    return reasons
