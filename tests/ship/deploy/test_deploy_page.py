"""docs/guides/deploy.md: its example runs."""

import doctest
import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow]

PAGE = Path(__file__).parents[3] / "docs/guides/deploy.md"


def test_the_example_runs():
    text = re.sub("^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.M)
    parser = doctest.DocTestParser()
    example = parser.get_doctest(text, {}, PAGE.name, PAGE.name, 0)
    failed, tried = doctest.DocTestRunner().run(example)
    assert failed == 0
    assert tried > 5
