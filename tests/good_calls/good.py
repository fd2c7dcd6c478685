"""A good call, and the wrong values that it is tried with."""

import inspect
from pathlib import Path

import numpy as np

WRONG = {
    "None": None,
    "text": "magnitud",
    "empty": "",
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "2": 2,
    "nan": float("nan"),
    "inf": float("inf"),
    "True": True,
    "[]": [],
    "shape": np.ones((3, 1)),
}
# What a path is tried with, beside those: a file of another kind, and below it.
PLACES = {"other": Path("data.npz"), "below": Path("data.npz/new")}
# A good call says by these words which wrong values are right for an argument.
WORDS = {
    "count": "0 2",
    "positive": "2",
    "real": "-1 0 1.5 2",
    "above_0": "1.5 2",
    "from_0": "0 1.5 2",
    "share": "0",
    "flag": "True",
    "path": "text",
    "seed": "0 2",
    "list": "[]",
    "any": " ".join(WRONG),
    "array": "shape",
    "text": "text",
    "none": "None",
}
# Wherever an argument has this name; a good call may say otherwise.
USUAL = {
    "seed": "seed",
    "verbose": "0 True",
    "exclude": "list",
    "batch_size": "positive",
    "steps": "positive",
    "epochs": "positive",
    "replicates": "positive",
    "card": "none",
    "name": "text",
    "directory": "path",
    "controls": "none list",
    "replace": "list",
}


class Good:
    """A good call: a function, its arguments, and words for what else is right."""

    def __init__(self, arguments, call=None, wrong_models="", **right):
        self.arguments, self.call, self.right = arguments, call, right
        self.wrong_models = wrong_models

    def is_right(self, argument, label, parameter):
        words = self.right.get(argument, USUAL.get(argument, ""))
        right = " ".join(WORDS.get(word, word) for word in words.split()).split()
        if parameter is not None and label != "shape":
            # What is the default is right; so is another flag.
            value = WRONG.get(label, inspect.Parameter.empty)
            if type(parameter.default) is bool and label == "True":
                return True
            if parameter.default is None and value is None:
                return True
        return label in right
