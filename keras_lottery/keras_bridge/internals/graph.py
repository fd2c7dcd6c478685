"""The graph of a Sequential or Functional model, as Keras stores it.

Everything here was seen on Keras 3.15.
"""

from collections.abc import Iterator
from typing import Any

import keras

# Keras exports no name for the class of its Functional models.
from keras.src.models.functional import Functional


def is_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or Functional model and not a subclass of one.

    `keras.src.models.functional.Functional`, seen on Keras 3.15. Without it, a
    subclass, whose `call` may do anything, would be treated as a graph.
    """
    return type(layer) in (keras.Sequential, Functional)


def has_graph(layer: Any) -> bool:
    """Whether a layer computes its graph: also a subclass, if `call` is Keras's.

    The backbones of keras-hub are such subclasses. A copy of the graph does not have
    the subclass.
    """
    if isinstance(layer, Functional):
        return type(layer).call is Functional.call
    return isinstance(layer, keras.Sequential) and (
        type(layer).call is keras.Sequential.call
    )


def functional(model: keras.Model) -> Any:
    """Returns the Functional model behind a Sequential one, or the model itself.

    `Sequential._functional`, seen on Keras 3.15. `keras.Model(inputs, outputs)` would
    make another model, which would also use up a name in Keras's counters.
    """
    return model._functional if isinstance(model, keras.Sequential) else model


def nodes_in_order(model: keras.Model) -> Iterator[Any]:
    """Yields each use of a layer in a model's graph, after the uses that it reads.

    A node has `operation`, `arguments`, `input_tensors` and `outputs`.

    `Functional._nodes_by_depth`, seen on Keras 3.15. The public `operations` lists each
    layer once, so that shared layers could not be followed.
    """
    nodes = functional(model)._nodes_by_depth
    for depth in sorted(nodes, reverse=True):
        yield from (node for node in nodes[depth] if not node.is_input)


def nodes_of(layer: Any) -> list[Any]:
    """Returns each use of a layer in any graph; none for a model without a graph.

    `Layer._inbound_nodes`, seen on Keras 3.15. The public `output` raises for layers
    that are used twice or never.
    """
    return list(layer._inbound_nodes)


def function_name(operation: Any) -> str | None:
    """Returns the class name of a function of `keras.ops` in a graph, else `None`.

    `keras.src.ops` and `keras.src.applications`, seen on Keras 3.15, which exports no
    name for these classes. Without it, no channel is followed through `x + y`, nor
    through the layers that only ConvNeXt has.
    """
    kind = type(operation)
    own = ("keras.src.ops.", "keras.src.applications.")
    return kind.__name__ if kind.__module__.startswith(own) else None
