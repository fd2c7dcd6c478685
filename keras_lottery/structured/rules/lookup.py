"""The rule of embeddings, whose channels are columns of a table."""

from typing import Any

import numpy as np

from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, common, weights_of


class Lookup(Rule):
    """Channels are looked up in a table, by indices that are not channels."""

    def link(self, call: Call, channels: Channels) -> None:
        outputs = self.layer.output_dim
        new = channels.new_tensor(outputs) if call is self.calls[0] else None
        call.outputs.append(new or Tensor(self.calls[0].outputs[0].atoms))

    def values(self, call: Call) -> list[np.ndarray]:
        return [common(weights_of(self.layer)["embeddings"]).astype("float64")]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        table = self.cut("embeddings", weights_of(self.layer)["embeddings"], keep)
        return {"output_dim": table.shape[1]}, {"embeddings": table}

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        return array[:, keep(self.calls[0].outputs[0])]
