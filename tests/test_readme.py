"""The examples of the README and the guides run, and give what is said there."""

import doctest
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

README = Path(__file__).parents[1] / "README.md"


GUIDE = README.parent / "docs" / "prune_without_training.md"


@pytest.mark.tensorflow
@pytest.mark.parametrize(("page", "least"), [(README, 20), (GUIDE, 15)])
def test_the_examples_run(page, least, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Without the fences, which doctest would take for output.
    text = re.sub("^```.*$", "", page.read_text(encoding="utf-8"), flags=re.M)
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, page.name, 0)
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    failed, tried = runner.run(examples)
    assert failed == 0
    assert tried > least
