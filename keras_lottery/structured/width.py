"""`narrow`: a model with fewer channels in its residual stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, overload

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.layer_inputs import inputs_alone
from keras_lottery.keras_bridge.layers import (
    get_masks,
    is_masked,
    mask_model,
    set_masks,
    walk,
)
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.keras_bridge.layers.masked import Masked
from keras_lottery.masks import Masks
from keras_lottery.structured.channels import Tensor
from keras_lottery.structured.graph import Graph
from keras_lottery.structured.importance import importance_of, normalisations
from keras_lottery.structured.rebuild import rebuild
from keras_lottery.structured.removal import plain_copy
from keras_lottery.structured.rules import Keep, stream_rule_for
from keras_lottery.structured.units import listed
from keras_lottery.tickets.allocation import Uniform


@dataclass(frozen=True)
class WidthReport:
    """What `narrow` measured and removed; `str()` formats it as readable lines.

    A residual stream has the name of the first layer that normalises it.

    Attributes:
        parameters_before: the parameters of the given model, masks not counted.
        parameters_after: the parameters of the smaller model.
        importance: the importance of each channel, by residual stream.
        kept: whether each channel stays, by residual stream.
    """

    parameters_before: int
    parameters_after: int
    importance: Mapping[str, np.ndarray]
    kept: Mapping[str, np.ndarray]

    def __str__(self) -> str:
        share = self.parameters_after / self.parameters_before
        lines = [
            f"parameters  {self.parameters_before:,} -> {self.parameters_after:,} "
            f"({share:.1%})"
        ]
        lines += [
            f"  {name}: {kept.size} -> {kept.sum()} channels"
            for name, kept in self.kept.items()
        ]
        return "\n".join(lines)


@overload
def narrow(
    model: keras.Model,
    sparsity: float,
    data: Any,
    return_report: Literal[False] = False,
) -> keras.Model: ...


@overload
def narrow(
    model: keras.Model, sparsity: float, data: Any, return_report: Literal[True]
) -> tuple[keras.Model, WidthReport]: ...


def narrow(
    model: keras.Model, sparsity: float, data: Any, return_report: bool = False
) -> keras.Model | tuple[keras.Model, WidthReport]:
    """Returns a model whose residual stream has fewer channels: a narrower embedding.

    The residual stream of a transformer consists of the embeddings and all that blocks
    add to them. Its channels are removed at once from every layer that makes, reads or
    normalises them: embeddings, attention, Dense, EinsumDense, LayerNormalization and
    RMSNormalization. The channels with the smallest importance go. A channel's
    importance is the absolute value of what a normalisation returns for it, averaged
    over positions; of these means, the L2 norm over the examples, summed over all
    normalisations of the stream. Padding does not count: positions that Keras's mask
    leaves out, or that no query of the stream's attention layers sees. Heads,
    feed-forward units, and the model's inputs and outputs stay.

    A normalisation computes its statistics over the channels that are left. This
    changes the model's outputs: train the smaller model afterwards, for example by
    distillation.

    Args:
        model: a built Sequential or Functional model, masked or not. Blocks of other
            layers, such as keras-hub's, have to be opened by `inline` first. The model
            is left untouched; if it is masked, the smaller one has the masks of the
            weights that stay, and if it is compiled, the smaller one is compiled in
            the same way, with a fresh optimizer.
        sparsity: the share of the channels to remove. A model with several residual
            streams, such as an encoder and a decoder, loses this share of each.
        data: inputs of the model, arrays or a data set, without targets. A few
            hundred examples are enough.
        return_report: whether to return a `WidthReport` as well.

    Returns:
        The smaller model, or `(model, report)`.

    Raises:
        ValueError: if the model is not built or is a subclassed model, has no residual
            stream of normalised channels, or if the channels cannot be removed, because
            the model returns them or a layer cannot be followed. The error names these
            layers.

    Reference:
        Muralidharan et al. 2024, [Compact language models via pruning and knowledge
        distillation](https://arxiv.org/abs/2407.14679) (Minitron), importance of
        embedding channels, aggregated by "(batch=L2, seq=mean)".

    Example:

    >>> import keras_lottery as kl
    >>> model = kl.models.bert_small((8,), blocks=2, width=32, vocabulary=50)
    >>> texts = np.random.default_rng(0).integers(1, 50, (16, 8))
    >>> small, report = kl.narrow(model, 0.5, texts, return_report=True)
    >>> print(report)
    parameters  28,186 -> 14,330 (50.8%)
      norm: 32 -> 16 channels
    """
    checks.fraction("sparsity", sparsity, zero=False)
    checks.flag("return_report", return_report)
    plain = plain_copy(model)
    graph = Graph(plain, stream_rule_for, has_dead=False)
    streams = _streams(graph)
    _check(graph, streams)
    for name, groups in streams.items():
        if not round(groups.size * (1 - sparsity)):
            _refuse_all(sparsity, f"'{name}', which normalises {groups.size} channels")

    measured = importance_of(graph, inputs_alone(data, model))
    importance = {name: measured[groups] for name, groups in streams.items()}
    whole = Masks.dense({name: groups.shape for name, groups in streams.items()})
    kept = Uniform()(importance, whole, sparsity)
    stays = np.ones(len(measured), bool)
    for name, groups in streams.items():
        stays[groups] = kept[name]

    def keep(tensor: Tensor) -> np.ndarray:
        return stays[graph.groups[tensor.atoms]]

    _check_left(graph, keep, sparsity)
    small = rebuild(graph, keep)
    report = WidthReport(plain.count_params(), small.count_params(), importance, kept)
    if is_masked(model):
        small = _masked_alike(model, small, graph, keep)
    compile_alike(model, small)
    return (small, report) if return_report else small


def _streams(graph: Graph) -> dict[str, np.ndarray]:
    """Returns the groups of the channels that are added up and normalised, by layer."""
    summed = [
        graph.groups[call.outputs[0].atoms]
        for call in graph.calls
        if type(call.layer).__name__ == "Add" and len(call.inputs) > 1
    ]
    left = set(np.concatenate(summed).tolist()) if summed else set()
    # Narrow ones first: a normalisation may read several streams, one after another.
    normalised = sorted(normalisations(graph), key=lambda found: found[1].width)
    streams: dict[str, np.ndarray] = {}
    for name, tensor in normalised:
        # In the order of the channels.
        own = [n for n in dict.fromkeys(graph.groups[tensor.atoms]) if n in left]
        if own:
            left -= set(own)
            streams[name] = np.array(own)
    return streams


def _check(graph: Graph, streams: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless all channels of the streams can be removed."""
    if not streams:
        raise ValueError(
            f"Model '{graph.model.name}' has no residual stream: no additions of "
            "channels that LayerNormalization or RMSNormalization normalise. Blocks "
            "made of other layers are opened by `kl.inline`."
        )
    groups = np.concatenate(list(streams.values()))
    fixed = groups[graph.fixed_groups()[groups]]
    if not len(fixed):
        return
    reasons = graph.blocks(fixed)
    for tensors, verb in ((graph.inputs, "takes"), (graph.outputs, "returns")):
        if any(np.isin(graph.groups[x.atoms], fixed).any() for x in tensors):
            reasons.append(f"the model {verb} these channels")
    raise ValueError(
        f"Expected a model whose residual stream, {list(streams)}, can be followed. "
        f"Received: model '{graph.model.name}'. Open blocks made of other layers by "
        "`kl.inline`; add a rule for a layer class of your own by "
        "`keras_lottery.structured.register_rule`; give a model that takes or returns "
        "the stream itself an embedding or a head. "
        + listed(
            "What keeps the channels", reasons or ["an activation that mixes them"]
        )
    )


def _check_left(graph: Graph, keep: Keep, sparsity: float) -> None:
    """Raises ValueError if a layer's channels would all be removed."""
    for call in graph.calls:
        for tensor in call.outputs:
            if tensor.width and not keep(tensor).any():
                name = graph.name(call.layer)
                _refuse_all(sparsity, f"'{name}', which takes a few of the channels")


def _refuse_all(sparsity: float, layer: str) -> NoReturn:
    raise ValueError(
        "Expected a `sparsity` that leaves each layer a channel of the stream. "
        f"Received: sparsity={sparsity}, by which {layer}, has none. Remove fewer."
    )


def _masked_alike(
    model: keras.Model, small: keras.Model, graph: Graph, keep: Keep
) -> keras.Model:
    """Returns the smaller model with the masks of the weights that stay."""
    paths = {id(layer): path for path, layer in walk(small)}
    masked = {path for path, layer in walk(model) if isinstance(layer, Masked)}
    new = mask_model(small, lambda layer: paths.get(id(layer)) in masked)
    rules = {graph.name(rule.layer): rule for rule in graph.rules.values()}
    masks = {}
    for name, mask in get_masks(model).items():
        # A weight of an attention layer belongs to a layer inside.
        path = name
        while path not in rules:
            path = path.rpartition("/")[0]
        masks[name] = rules[path].cut(name[len(path) + 1 :], mask, keep)
    set_masks(new, masks)
    return new
