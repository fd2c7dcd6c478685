"""`drop_blocks`: a model without the blocks that change their input least."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import keras
import numpy as np

from keras_lottery import checks
from keras_lottery.keras_bridge.graph import inputs_of
from keras_lottery.keras_bridge.internals.graph import has_graph, nodes_in_order
from keras_lottery.keras_bridge.internals.layers import children
from keras_lottery.keras_bridge.layer_inputs import in_batches_of_inputs, inputs_alone
from keras_lottery.keras_bridge.layers import walk
from keras_lottery.keras_bridge.layers.convert import compile_alike
from keras_lottery.keras_bridge.layers.copying import clone, duplicate
from keras_lottery.structured.removal import check_followed
from keras_lottery.tickets.carry_over import matching

BATCH = 32


@dataclass(frozen=True)
class DepthReport:
    """What `drop_blocks` measured and removed; `str()` formats it as readable lines.

    Attributes:
        influence: 1 − cos between each block's input and output, by block name, in the
            model's order. It is 1 where a block makes zeros.
        dropped: the names of the removed blocks.
    """

    influence: Mapping[str, float]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            f"{name}  {value:.4f}{'  dropped' * (name in self.dropped)}"
            for name, value in self.influence.items()
        )


@overload
def drop_blocks(
    model: keras.Model,
    count: int,
    data: Any,
    blocks: str | Sequence[str] | None = None,
    return_report: Literal[False] = False,
) -> keras.Model: ...


@overload
def drop_blocks(
    model: keras.Model,
    count: int,
    data: Any,
    blocks: str | Sequence[str] | None = None,
    *,
    return_report: Literal[True],
) -> tuple[keras.Model, DepthReport]: ...


def drop_blocks(
    model: keras.Model,
    count: int,
    data: Any,
    blocks: str | Sequence[str] | None = None,
    return_report: bool = False,
) -> keras.Model | tuple[keras.Model, DepthReport]:
    """Returns a model without the blocks that change their input least.

    A block is a layer or a nested model, made of other layers, that returns one tensor
    of the shape of its first input, such as a transformer's. For each block, 1 − cos
    between its input and its output is measured, averaged over examples and positions.
    The `count` blocks with the smallest values are removed at once: their inputs take
    the place of their outputs. This changes the model's outputs: train the smaller
    model afterwards, for example by distillation.

    Args:
        model: a built Sequential or Functional model, or one of keras-hub's backbones;
            masked or not. It is left untouched; if it is compiled, the smaller one is
            compiled in the same way, with a fresh optimizer.
        count: the number of blocks to remove; at least one block has to stay.
        data: inputs of the model, arrays or a data set, without targets. A few
            hundred examples are enough.
        blocks: names or patterns of the blocks to choose from; by default all.
        return_report: whether to return a `DepthReport` as well.

    Returns:
        The smaller model, or `(model, report)`.

    Raises:
        ValueError: if the model is not built or is a subclassed model, has at most
            `count` such blocks, or if a pattern matches none of them.

    Reference:
        Men et al. 2024, [ShortGPT: layers in large language models are more redundant
        than you expect](https://arxiv.org/abs/2403.03853), "block influence"; so does
        Muralidharan et al. 2024, [Compact language models via pruning and knowledge
        distillation](https://arxiv.org/abs/2407.14679) (Minitron).

    Example:

    >>> import keras_lottery as kl
    >>> model = kl.models.bert_small((8,), blocks=3, width=32, vocabulary=50)
    >>> texts = np.random.default_rng(0).integers(1, 50, (16, 8))
    >>> small, report = kl.drop_blocks(model, 1, texts, return_report=True)
    >>> list(report.influence), len(report.dropped)
    (['block_0', 'block_1', 'block_2'], 1)
    """
    checks.count("count", count, 1)
    checks.flag("return_report", return_report)
    check_followed(model)
    found = _blocks(model)
    if blocks is not None:
        named = matching("blocks", model, blocks)
        found = {name: node for name, node in found.items() if name in named}
    if len(found) <= count:
        raise ValueError(
            "Expected `count` to be less than the number of blocks, layers or nested "
            "models that return a tensor of the shape that they read first. Received: "
            f"count={count}, and of model '{model.name}' the blocks {list(found)}. "
            "Blocks inside other layers do not count."
        )
    influence = _influence(model, found, inputs_alone(data, model))
    ranked = sorted(influence, key=influence.__getitem__)
    dropped = tuple(name for name in found if name in ranked[:count])

    small = _without(duplicate(model), dropped)
    compile_alike(model, small)
    report = DepthReport(influence, dropped)
    return (small, report) if return_report else small


def _without(model: keras.Model, dropped: Sequence[str]) -> keras.Model:
    """Returns a model of the same layers without some of them."""
    gone = {id(layer) for path, layer in walk(model) if path in dropped}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in gone:
            return keras.tree.flatten((args, kwargs))[0]
        return layer(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        kept = [layer for layer in model.layers if id(layer) not in gone]
        given = model.inputs[0]
        first = keras.Input(batch_shape=given.shape, dtype=given.dtype)
        return keras.Sequential([first, *kept], name=model.name)
    return clone(model, lambda layer: layer, call=call)


def _blocks(model: keras.Model) -> dict[str, Any]:
    """Returns the node of each block in the model's graph, by path, in order."""
    paths = {id(layer): path for path, layer in walk(model)}
    nodes: dict[int, list[Any]] = {}
    for node in nodes_in_order(model):
        nodes.setdefault(id(node.operation), []).append(node)
    return {paths[i]: used[0] for i, used in nodes.items() if _is_block(used)}


def _is_block(nodes: list[Any]) -> bool:
    """Whether a layer with these uses can be removed as a block."""
    node = nodes[0]
    layer, reads, makes = node.operation, node.input_tensors, node.outputs
    made_of_others = isinstance(layer, keras.layers.Layer) and (
        has_graph(layer) or bool(children(layer))
    )
    return (
        len(nodes) == len(makes) == 1
        and made_of_others
        and bool(layer.weights)
        and reads[0].shape == makes[0].shape
        and reads[0].dtype == makes[0].dtype
    )


def _influence(
    model: keras.Model, blocks: Mapping[str, Any], x: Any
) -> dict[str, float]:
    """Returns 1 − cos between each block's input and output, averaged over vectors."""
    pairs = [[node.input_tensors[0], node.outputs[0]] for node in blocks.values()]
    values = keras.Model(inputs_of(model), pairs)
    total, vectors = np.zeros(len(pairs)), np.zeros(len(pairs))
    for batch in in_batches_of_inputs(model, x, BATCH):
        flat = keras.tree.flatten(values(batch, training=False))
        arrays = [keras.ops.convert_to_numpy(a).astype("float64") for a in flat]
        for i, (before, after) in enumerate(
            zip(arrays[::2], arrays[1::2], strict=True)
        ):
            sizes = [np.linalg.norm(array, axis=-1) for array in (before, after)]
            norms = sizes[0] * sizes[1]
            cosine = np.sum(before * after, axis=-1) / np.where(norms, norms, 1)
            # A vector that stays zero, such as padding, does not change.
            total[i] += np.sum(np.where(sum(sizes), 1 - cosine, 0))
            vectors[i] += norms.size
    means = total / vectors
    return dict(zip(blocks, map(float, means), strict=True))
