"""The rule of embeddings, whose channels are columns of a table."""

from typing import Any

import numpy as np

from keras_lottery.structured.channels import Call, Channels, Tensor
from keras_lottery.structured.rules.rule import Keep, Rule, Weights, common, weights_of


class Lookup(Rule):
    """Channels are looked up in a table, by indices that are not channels."""

    def link(self, call: Call, channels: Channels) -> None:
        if call is self.calls[0]:
            self.table = channels.new_tensor(self.layer.output_dim)
        call.outputs.append(Tensor(self.table.atoms))

    def values(self, call: Call) -> list[np.ndarray]:
        return [common(weights_of(self.layer)["embeddings"]).astype("float64")]

    def shrink(self, keep: Keep) -> tuple[dict[str, Any], Weights]:
        own = weights_of(self.layer)
        weights = {name: self.cut(name, array, keep) for name, array in own.items()}
        return {"output_dim": int(keep(self.table).sum())}, weights

    def cut(self, name: str, array: np.ndarray, keep: Keep) -> np.ndarray:
        return array[:, keep(self.table)]
