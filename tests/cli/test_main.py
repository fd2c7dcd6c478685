"""`keras-lottery` without a command, and what starts with it."""

import os
import subprocess
import sys

import pytest

from keras_lottery.cli import COMMANDS, main

pytestmark = pytest.mark.once


def test_alone_it_lists_its_commands(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.HELP.split()[0] in shown


@pytest.mark.slow
@pytest.mark.tensorflow
def test_tensorflow_is_silent_at_the_start_of_a_command():
    command = [sys.executable, "-m", "keras_lottery", "report", "no/such/run"]
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("keras-lottery: Expected the directory of a search.")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["find", "--directory", "a_file"],
        ["find", "--directory", "a_file/run"],
        ["find", "--directory", ""],
        ["find", "--saved-models", "a_file"],
        ["find", "--saved-models", ""],
        ["find", "--data", "a_file"],
        ["find", "--data", "a_folder.npz"],
        ["find", "--data", ""],
        ["report", "a_file"],
        ["report", ""],
        ["report", "a_folder", "--out", "."],
        ["report", "a_folder", "--out", ""],
        ["report", "a_folder", "--out", "data.npz"],
        ["report", "a_folder", "--figures", "a_file"],
        ["report", "a_folder", "--figures", ""],
        ["deploy", "a_file", "--target", "mobile"],
        ["deploy", "", "--target", "mobile"],
        ["deploy", "a_folder", "--target", "mobile", "--saved-models", "a_file"],
        ["deploy", "a_folder", "--target", "mobile", "--saved-models", ""],
        ["benchmark", "a_folder"],
        ["benchmark", ""],
        ["benchmark", "net.tflite", "--plot", "data.npz"],
        ["benchmark", "net.tflite", "--plot", ""],
        ["benchmark", "net.tflite", "--json", "."],
        ["benchmark", "net.tflite", "--data", "a_folder.npz"],
        ["reproduce", "layers", "--directory", "a_file"],
        ["reproduce", "layers", "--directory", ""],
    ],
    ids=" ".join,
)
def test_a_wrong_place_is_wrong_input(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    for name in ("a_folder", "a_folder.npz"):
        (tmp_path / name).mkdir()
    for name in ("a_file", "data.npz", "net.tflite"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    try:
        code = main(arguments)
    except SystemExit as exit:
        code = exit.code
    message = capsys.readouterr().err
    assert code == 2, message
    assert message.count("\n") == 1, message
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "data.npz").read_text() == "mine"
