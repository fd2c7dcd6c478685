"""The examples of the README and the guides run, and give what is said there."""

import doctest
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
# How many examples there are at least, in which pages.
PAGES = {
    "README.md": 12,
    "docs/guides/prune_in_fit.md": 15,
    "docs/guides/search.md": 8,
    "docs/guides/compress.md": 8,
    "docs/guides/transfer.md": 8,
    "docs/guides/transformers.md": 13,
    "docs/guides/own_criterion.md": 8,
    "docs/guides/prune_without_training.md": 15,
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Without the fences, which doctest would take for output.
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub("^```.*$", "", text, flags=re.M)
    examples = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    failed, tried = runner.run(examples)
    assert failed == 0
    assert tried >= PAGES[page]
