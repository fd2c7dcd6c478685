import dataclasses

import pytest

from keras_lottery.papers import models


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """XLA compiles LeNet for longer than these trainings take."""
    recipe = models.recipe

    def changed(name):
        return dataclasses.replace(recipe(name), jit_compile=False)

    monkeypatch.setattr(models, "recipe", changed)
