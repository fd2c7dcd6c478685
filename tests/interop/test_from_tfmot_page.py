"""docs/guides/from_tfmot.md: its code runs, and it leaves no name of TFMOT out."""

import doctest
import re
from pathlib import Path

import pytest

from tests.models_zoo import KERAS

PAGE = Path(__file__).parents[2] / "docs/guides/from_tfmot.md"
TEXT = PAGE.read_text(encoding="utf-8")

pytestmark = pytest.mark.tensorflow


@pytest.mark.skipif(
    KERAS < (3, 13), reason="files of Keras before 3.13 name their tensors otherwise"
)
def test_the_code_runs(tfmot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    names = {}
    for language, code in re.findall("^```(\\w+)\n(.*?)^```$", TEXT, re.M | re.S):
        if language == "python":
            exec(code, names)
        elif language == "pycon":
            example = doctest.DocTestParser().get_doctest(code, names, "", "", 0)
            assert runner.run(example, clear_globs=False).failed == 0
            names = example.globs
    assert runner.tries > 20


def test_every_public_name_has_a_row(tfmot):
    groups = [
        tfmot.sparsity.keras,
        tfmot.clustering.keras,
        tfmot.quantization.keras,
        tfmot.experimental.combine,
    ]
    names = [name for group in groups for name in dir(group) if name[0] != "_"]
    assert "prune_low_magnitude" in names
    rows = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    assert [name for name in names if not re.search(rf"\b{name}\b", rows)] == []
