"""The rule of the mean over positions, of those that a mask names or of all."""

import numpy as np

from keras_lottery.structured.channels import Call, Channels
from keras_lottery.structured.rules.per_channel import PerChannel


class MaskedMean(PerChannel):
    """A mean over positions; a second tensor may be the mask of those that count."""

    def link(self, call: Call, channels: Channels) -> None:
        super().link(call, channels)
        for mask in call.inputs[1:]:
            channels.fix(mask)

    def needs(self, call: Call) -> list[np.ndarray]:
        masks = [np.ones(mask.width, bool) for mask in call.inputs[1:]]
        return [*super().needs(call), *masks]

    def stuck(self, call: Call) -> list[np.ndarray]:
        masks = [np.zeros(mask.width, bool) for mask in call.inputs[1:]]
        return [*super().stuck(call), *masks]
