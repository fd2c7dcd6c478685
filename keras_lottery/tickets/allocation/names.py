"""Checks of the names, name patterns and scores that an allocation receives."""

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from keras_lottery import checks
from keras_lottery.masks import Masks
from keras_lottery.tickets.allocation.ranking import Scores


def check_masks(masks: Masks) -> None:
    """Raises ValueError if there are no masks."""
    form = "a `Masks` of at least one weight"
    if not checks.instance("masks", masks, Masks, form):
        checks.refuse("masks", form, masks)


def check_scores(scores: Scores, masks: Masks) -> None:
    """Raises ValueError if the scores do not fit the masks."""
    check_masks(masks)
    checks.instance("scores", scores, Mapping, "arrays by weight name")
    if scores.keys() != masks.keys():
        checks.refuse("scores", f"arrays for {sorted(masks)}", sorted(scores))
    for name, mask in masks.items():
        if np.shape(scores[name]) != mask.shape:
            raise ValueError(
                f"Expected `scores` of shape {mask.shape} for `{name}`. "
                f"Received: shape {np.shape(scores[name])}"
            )


def check_names(**patterns: Sequence[str] | Mapping[str, float]) -> None:
    """Raises ValueError unless arguments are lists of, or mappings from, strings."""
    for argument, given in patterns.items():
        checks.names(argument, given, "a list of patterns of weights or layers")


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches a weight's name or that of a layer that contains it.

    >>> matches("encoder/hidden/kernel", "encoder/*"), matches("out/kernel", "out")
    (True, True)
    """
    parts = name.split("/")
    paths = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatchcase(path, pattern) for path in paths)


def check_patterns(patterns: Iterable[str], names: Collection[str]) -> None:
    """Raises ValueError if a pattern matches no weight."""
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            raise ValueError(
                f"The pattern {pattern!r} matches none of the weights {sorted(names)}"
            )


def included(masks: Masks, exclude: Sequence[str]) -> list[str]:
    """Returns the names of the weights that no pattern excludes."""
    check_patterns(exclude, masks)
    names = [name for name in masks if not any(matches(name, p) for p in exclude)]
    if not names:
        raise ValueError(f"Every layer is left out. Received: exclude={exclude!r}")
    return names
