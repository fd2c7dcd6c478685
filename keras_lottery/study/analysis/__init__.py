"""What tickets are made of, and how nets relate: functions of states, masks and runs.

Only functions with `train` in their names train anything. A *state* is a mapping such
as `layers.get_state` reads from a model. The tickets of a stored search have two of
them, `ticket.weights` and `ticket.trained`; at level 0, these are the dense network's
weights before and after its training. Tables are tidy, with a row for each measurement.
"""

from keras_lottery.study.analysis.adversarial import fast_gradient_sign
from keras_lottery.study.analysis.calibration import calibration_error
from keras_lottery.study.analysis.connectivity import instability, interpolate
from keras_lottery.study.analysis.correlation import weight_correlation
from keras_lottery.study.analysis.criticality import layer_criticality
from keras_lottery.study.analysis.densities import densities_by_level, layer_densities
from keras_lottery.study.analysis.gap import generalisation_gap
from keras_lottery.study.analysis.movement import weight_histograms, weight_movement
from keras_lottery.study.analysis.noise import (
    train_and_measure_instability,
    train_rewind_points,
)
from keras_lottery.study.analysis.overlap import mask_overlap

__all__ = [
    "calibration_error",
    "densities_by_level",
    "fast_gradient_sign",
    "generalisation_gap",
    "instability",
    "interpolate",
    "layer_criticality",
    "layer_densities",
    "mask_overlap",
    "train_and_measure_instability",
    "train_rewind_points",
    "weight_correlation",
    "weight_histograms",
    "weight_movement",
]
