"""Errors, before anything is trained or written."""

import keras
import pytest

import keras_lottery as kl
from tests.search.small_search import FIT, Y, build, make

pytestmark = pytest.mark.once


def headless():
    """Its outputs are zero, and so are all derivatives behind them."""
    model = build()
    model.layers[-1].kernel.assign(keras.ops.zeros_like(model.layers[-1].kernel))
    return model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "magic"}, "criterion='magic'"),
        ({"allocation": "magic"}, "allocation='magic'"),
        ({"granularity": "magic"}, "granularity='magic'"),
        ({"rewind": "magic"}, "rewind='magic'"),
        ({"controls": {"magic": 1}}, "controls='magic'"),
        ({"controls": {"reinit": 0}}, r"controls\['reinit'\]=0"),
        ({"controls": {"a/b": (kl.controls.shuffle, 1)}}, "a/b"),
        ({"controls": {"prune": (kl.controls.shuffle, 1)}}, "'prune'"),
        ({"controls": "magic"}, "controls='magic'"),
        ({"schedule": [0.5, 0.4]}, "increase"),
        ({"replicates": 0}, "replicates=0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("search", "fit", "message"),
    [
        ({}, {"epochs": None}, "either `epochs` or `steps`"),
        ({}, {"steps": 3}, "either `epochs` or `steps`"),
        ({}, {"epochs": 0}, "at least"),
        ({}, {"validation_data": None}, "validation_data"),
        ({}, {"y": Y[:99]}, "one length"),
        ({}, {"batch_size": 0}, "`batch_size`"),
        ({}, {"eval_freq": 0}, "eval_freq"),
        ({"rewind_to": 12}, {}, "rewind_to=12"),
        ({"rewind_to": "soon"}, {}, "rewind_to='soon'"),
        ({"model": lambda: build(metrics=())}, {}, "metrics=\\['accuracy'\\]"),
        ({"model": keras.Sequential}, {}, "compiled"),
        ({"prunable": "nothing"}, {}, "nothing"),
        (
            {"model": headless, "criterion": "snip", "prune_at_init": True},
            {},
            "only zeros, from criterion=",
        ),
        (
            {"allocation": kl.allocation.Layerwise({"nothing": 0.1})},
            {},
            "nothing",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    tmp_path, search, fit, message
):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **search).search(**FIT | fit)
    assert not list(tmp_path.rglob("level_*"))


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_build_function_that_seeds_itself_is_refused_for_replicates(
    tmp_path, overwrite
):
    """The directory stays as it was: the corrected function finds no settings there."""
    (tmp_path / "replicate_0").mkdir()
    kept = tmp_path / "replicate_0" / "kept.txt"
    kept.write_text("of a search before")
    asked = {"replicates": 2, "schedule": [0.5], "overwrite": overwrite}
    search = make(tmp_path, lambda: build(seed=3), **asked)
    with pytest.raises(ValueError, match="sets a seed"):
        search.search(**FIT)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    locks = {search.store.lock, search.store.lock_of(0)}
    assert files - locks == {kept}


def test_a_training_that_diverges_says_where():
    search = make(model=lambda: build(learning_rate=1e30), controls={})
    with pytest.raises(FloatingPointError, match=r"level 0.*learning rate"):
        search.search(**FIT)


def test_no_ticket_yet():
    with pytest.raises(ValueError, match="call `search` first"):
        make().best_ticket()
