"""A good call of every public name: its arguments, and what else is right for them.

`tests/test_arguments.py` makes each call with one wrong argument at a time. A new
public name needs a line in the file of its room of the library; `registries.py` has
what is looked up by name, and `masked.py` what is done with masked models. A new
argument of a known one needs a word of `good.py`, such as `count`, only if some of the
wrong values are right for it.
"""

from tests.good_calls import (
    admm,
    automatic,
    in_fit,
    masked,
    papers,
    registries,
    search,
    ship,
    structured,
    study,
    tickets,
)
from tests.good_calls.given import finished, made, mlp
from tests.good_calls.good import PLACES, WRONG

__all__ = ["PLACES", "WRONG", "finished", "good_calls", "mlp"]

ROOMS = [
    admm,
    automatic,
    in_fit,
    masked,
    papers,
    registries,
    search,
    ship,
    structured,
    study,
    tickets,
]


def good_calls(folder, run):
    """The good calls by public names; methods of a class are named after themselves."""
    of = made(folder, run)
    return {name: good for room in ROOMS for name, good in room.calls(of).items()}
