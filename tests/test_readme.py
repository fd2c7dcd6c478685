"""The README's examples run, and give what the README says they give."""

import doctest
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.tensorflow
def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Without the fences, which doctest would take for output.
    text = re.sub("^```.*$", "", README.read_text(encoding="utf-8"), flags=re.M)
    examples = doctest.DocTestParser().get_doctest(
        text, {}, README.name, README.name, 0
    )
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    failed, tried = runner.run(examples)
    assert failed == 0
    assert tried > 20
