"""The list of features, which .ci/matrix counts the tests of."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
FEATURES = tomllib.loads((ROOT / ".ci" / "features.toml").read_text("utf-8"))
TESTS = [p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("test_*.py")]


def test_every_file_of_tests_is_of_one_feature():
    patterns = [pattern for several in FEATURES.values() for pattern in several]
    assert len(patterns) == len(set(patterns))
    fits = {path: [p for p in patterns if fnmatch(path, p)] for path in TESTS}
    missing = [path for path, several in fits.items() if not several]
    assert missing == [], "name them in .ci/features.toml, under a feature"
    longest = {max(several, key=len) for several in fits.values()}
    assert set(patterns) - longest == set()
