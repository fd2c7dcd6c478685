"""A learning-rate schedule that a ticket can enter at any step."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_lottery")
class OffsetSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that is read `offset` steps ahead, or a constant rate instead.

    The optimizer's own step count starts at zero for every ticket. With fresh slots and
    a step count of 500, Adam would correct the bias of its slots too little, and its
    first steps would be twice too long.

    Args:
        optimizer: holds the offset and the constant rate as variables, so that a
            compiled training step reads their current values.
        schedule: the schedule to read.
        steps: the length of the training; after it, the schedule keeps its last value.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        steps: int,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.last = steps - 1
        self.offset = optimizer.add_variable(
            (), "zeros", dtype="int32", name="schedule_offset"
        )
        self.constant = optimizer.add_variable(
            (), keras.initializers.Constant(-1.0), name="constant_rate"
        )

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "int32") + ops.convert_to_tensor(self.offset)
        scheduled = self.schedule(ops.minimum(step, self.last))
        constant = ops.convert_to_tensor(self.constant)
        return ops.where(constant >= 0, constant, ops.cast(scheduled, constant.dtype))

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self.schedule)}

    @classmethod
    def from_config(
        cls, config: dict[str, Any]
    ) -> keras.optimizers.schedules.LearningRateSchedule:
        """The schedule itself, because a rebuilt model starts at its beginning."""
        return keras.saving.deserialize_keras_object(config["schedule"])
