"""The example of docs/methods.md runs."""

import doctest
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[3] / "docs/methods.md"


@pytest.mark.tensorflow
def test_the_example_runs():
    # Without the fences, which doctest would take for output.
    text = re.sub("^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.M)
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, PAGE.name, 0)
    failed, tried = doctest.DocTestRunner().run(examples)
    assert failed == 0
    assert tried >= 10
