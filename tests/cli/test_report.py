"""`keras-lottery report`."""

import shutil
from pathlib import Path

import pytest

from keras_lottery import cli

pytestmark = pytest.mark.once

QUICK = [
    *("--levels", "1", "--steps", "4", "--replicates", "1", "--controls", "none"),
    *("--verbose", "0", "--engine", "fit", "--workers", "0"),
]


def test_a_run_of_find_becomes_a_page(tmp_path, monkeypatch, capsys, pretended):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["find", *QUICK, "--directory", "run", "--export", "none"]) == 0
    capsys.readouterr()
    arguments = ["report", "run", "--out", "new/page.html", "--figures", "figures"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == "new/page.html\n"
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "lenet_300_100" in page
    assert (tmp_path / "figures" / "first_layer_0.svg").exists()
    shutil.copytree("run", "other")
    assert cli.main(["report", "run", "other"]) == 0
    assert capsys.readouterr().out == "comparison.html\n"
    assert "All their settings are the same" in Path("comparison.html").read_text()
    assert cli.main(["report", "run", "missing"]) == 2
    assert "'missing'" in capsys.readouterr().err


def test_a_directory_without_a_run_is_named_in_one_line(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert str(tmp_path) in message
    assert "--directory" in message
