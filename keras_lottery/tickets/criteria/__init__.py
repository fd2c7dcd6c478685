"""What a weight is worth: `Snapshot -> scores`, larger means keep.

A criterion is a function of a snapshot that returns, for each weight in
`snapshot.masks`, an array of the weight's shape. Any such function may be given
wherever a name may. The decorator `in_rounds` makes a criterion prune in rounds.

To add a criterion, write a function in a file of its own and add a line to `CRITERIA`.
"""

from keras_lottery.registry import Registry
from keras_lottery.tickets.criteria.calibrated import admm_start, ria, sparsegpt, wanda
from keras_lottery.tickets.criteria.chance import random
from keras_lottery.tickets.criteria.criterion import (
    Criterion,
    CriterionLike,
    Function,
    complete,
    in_rounds,
)
from keras_lottery.tickets.criteria.fisher import fisher
from keras_lottery.tickets.criteria.grasp import grasp
from keras_lottery.tickets.criteria.obd import obd
from keras_lottery.tickets.criteria.signs import SignForm
from keras_lottery.tickets.criteria.snip import iterative_snip, snip
from keras_lottery.tickets.criteria.synflow import synflow
from keras_lottery.tickets.criteria.taylor import taylor
from keras_lottery.tickets.criteria.weights import (
    distance,
    large_init,
    large_init_large_final,
    magnitude,
    magnitude_increase,
    small_final,
    small_init,
    small_init_small_final,
)

__all__ = [
    "CRITERIA",
    "Criterion",
    "CriterionLike",
    "Function",
    "SignForm",
    "admm_start",
    "distance",
    "fisher",
    "get",
    "grasp",
    "in_rounds",
    "iterative_snip",
    "large_init",
    "large_init_large_final",
    "magnitude",
    "magnitude_increase",
    "obd",
    "random",
    "register",
    "ria",
    "small_final",
    "small_init",
    "small_init_small_final",
    "snip",
    "sparsegpt",
    "synflow",
    "taylor",
    "wanda",
]

_OF_WEIGHTS: dict[str, Function] = {
    "large_final": magnitude,
    "small_final": small_final,
    "large_init": large_init,
    "small_init": small_init,
    "large_init_large_final": large_init_large_final,
    "small_init_small_final": small_init_small_final,
    "magnitude_increase": magnitude_increase,
    "distance": distance,
}
_OF_MODELS: dict[str, Function | Criterion] = {
    "snip": snip,
    "iterative_snip": iterative_snip,
    "grasp": grasp,
    "synflow": synflow,
    "taylor": taylor,
    "fisher": fisher,
    "obd": obd,
    "wanda": wanda,
    "ria": ria,
    "sparsegpt": sparsegpt,
    "admm": admm_start,
}
CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    "a function of a snapshot",
    {
        "magnitude": magnitude,
        "random": random,
        **_OF_MODELS,
        **_OF_WEIGHTS,
        **{f"{name}_same_sign": SignForm(c, True) for name, c in _OF_WEIGHTS.items()},
        **{f"{name}_diff_sign": SignForm(c, False) for name, c in _OF_WEIGHTS.items()},
    },
    wrap=complete,
)
"""Criteria by name."""

get = CRITERIA.look_up
register = CRITERIA.register
