"""The tickets that come with the project are what their cards say."""

import doctest
import re
from pathlib import Path

import pytest

import keras_lottery as kl

FOLDER = Path(__file__).parents[1] / "saved_models"


@pytest.mark.once
@pytest.mark.parametrize(
    ("data", "density", "accuracy"),
    [("digits", 0.0467, 0.9694), ("mnist", 0.0358, 0.9812)],
)
def test_the_card(data, density, accuracy):
    path = FOLDER / f"{data}_lenet_300_100.ticket"
    ticket = kl.load_ticket(path)
    assert path.stat().st_size < 100_000
    assert ticket.masks.density == pytest.approx(density, abs=5e-5)
    assert ticket.card["sparsity"] == ticket.masks.sparsity
    assert ticket.card["metrics"]["final_test_accuracy"] == pytest.approx(
        accuracy, abs=5e-5
    )
    assert ticket.card["data"] == data
    for model in (ticket.initial_model(), ticket.trained_model()):
        assert kl.get_masks(model) == ticket.masks


def test_the_accuracy_of_the_digits_ticket():
    ticket = kl.load_ticket(FOLDER / "digits_lenet_300_100.ticket")
    model = ticket.trained_model()
    accuracy = model.evaluate(
        *kl.data.load("digits").test, verbose=0, return_dict=True
    )["accuracy"]
    # An image that lies on the border may fall on the other side elsewhere.
    expected = ticket.card["metrics"]["final_test_accuracy"]
    assert accuracy == pytest.approx(expected, abs=1.5 / 360)


@pytest.mark.once
def test_the_readme_runs(monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    # Without the fences, which doctest would take for output.
    text = re.sub("^```.*$", "", (FOLDER / "README.md").read_text(), flags=re.M)
    examples = doctest.DocTestParser().get_doctest(text, {}, "README", "README", 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed, tried = runner.run(examples)
    assert (failed, tried) == (0, 5)
