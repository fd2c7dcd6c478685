"""Names for what a search is made of, the user's own among them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_lottery as kl
from keras_lottery import registry
from keras_lottery.registry import Registry

pytestmark = pytest.mark.once

# JAX: what is sooner imported than TensorFlow.
ENV = os.environ | {
    "KERAS_BACKEND": "jax",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}
MODULES = (
    kl.allocation,
    kl.filter_criteria,
    kl.grouping,
    kl.controls,
    kl.criteria,
    kl.rewind,
    kl.schedules,
)


def powers():
    return Registry("power", "a function", {"square": lambda x: x * x})


def test_what_is_registered_is_found_by_name():
    made = powers()

    @made.register("cube")
    def cube(x):
        return x**3

    assert made.look_up("cube") is cube is made.look_up(cube)
    assert made.names() == ["cube", "square"]
    assert made.register("cube", abs) is abs, "registered again, as notebooks do"
    assert made.look_up("cube") is abs


def test_what_is_given_is_wrapped_once():
    made = Registry("power", "a function", {"square": lambda x: x * x}, wrap=Power)
    assert made.register("absolute", abs) is abs, "a decorator leaves it as it is"
    assert made.look_up("square")(3) == 9 and made.look_up("absolute")(-3) == 3
    assert made.look_up("absolute") is made.look_up("absolute")
    assert type(made.look_up(abs)) is Power


@pytest.mark.parametrize(
    "module, name",
    [(kl.grouping, "filter"), (kl.repair, "greedy_forward"), (kl.criteria, "snip")],
)
def test_names_of_the_library_s_own_are_not_taken(module, name):
    before = module.get(name)
    with pytest.raises(ValueError, match="none of the library's own"):
        module.register(name, before)
    assert module.get(name) is before


class Power:
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("square", abs, "none of the library's own names.*name='square'"),
        ("a/b", abs, "letters, digits and underscores.*name='a/b'"),
        ("mine", 3, "Expected a function for the power 'mine'. Received: 3"),
    ],
)
def test_what_cannot_have_a_name_is_refused(name, value, message):
    made = powers()
    with pytest.raises(ValueError, match=message):
        made.register(name, value)
    assert list(made) == ["square"]


@pytest.mark.parametrize("value", ["typo", 3, None])
def test_what_is_unknown_is_named(value):
    with pytest.raises(ValueError, match=rf"\['square'\].*power={value!r}"):
        powers().look_up(value)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_slot_takes_names_of_ones_own(module):
    with pytest.raises(ValueError, match="Expected"):
        module.register("no name", len)
    with pytest.raises(ValueError, match="typo"):
        module.get("typo")


def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0")
    (info / "entry_points.txt").write_text("[keras_lottery]\nbroken = no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="'broken' names 'no_such_module'"):
        registry.load_extensions.__wrapped__()


def test_names_are_looked_for_only_when_they_are_asked_for():
    code = (
        "import keras_lottery as kl\n"
        "from keras_lottery.registry import load_extensions\n"
        "kl.criteria.get('magnitude')\n"
        "print(load_extensions.cache_info().misses)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=ENV, capture_output=True, text=True
    )
    assert run.stdout.split() == ["0"], run.stderr
