"""`keras-lottery` without a command, and what starts with it."""

import argparse
import os
import re
import subprocess
import sys

import pytest

import keras_lottery
from keras_lottery.cli import COMMANDS, main
from keras_lottery.cli.parsing import Parser
from keras_lottery.startup import refusal, starting

pytestmark = pytest.mark.once


def test_alone_it_lists_its_commands(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.HELP.split()[0] in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    """By words, and with what holds where it is left out."""
    parser = Parser()
    COMMANDS[name].add_options(parser)
    for action in parser._actions:
        words = re.sub(r"\(default: .*\)", "", action.help or "").split()
        assert len(words) >= 2, f"{action.option_strings}: {action.help}"
        if action.default not in (None, [], False, argparse.SUPPRESS):
            assert "(default: " in action.help, action.option_strings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("deploy model.keras --target mobile", "the file 'model.keras'"),
        ("deploy --target mobile model.keras", "the file 'model.keras'"),
        ("deploy --target=mobile model.keras", "the file 'model.keras'"),
        ("deploy folder --target mobile", "'folder', in which there is no settings"),
        ("report no/such/run", "'no/such/run', in which there is no settings"),
        ("deploy run --target mobile --data model.keras", None),
        ("deploy --help", None),
        ("deploy model.keras folder", None),
        ("find --data model.keras", None),
        ("", None),
    ],
)
def test_what_is_no_run_is_refused_at_the_door(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    for name in ("run", "folder"):
        (tmp_path / name).mkdir()
    for name in ("model.keras", "run/settings.json"):
        (tmp_path / name).touch()
    found = refusal(arguments.split())
    assert found is None if words is None else words in found


def test_the_door_is_before_keras(tmp_path):
    """Which would ask for this backend."""
    (tmp_path / "model.keras").touch()
    command = [sys.executable, "-m", "keras_lottery", "deploy", "model.keras"]
    root = os.path.dirname(os.path.dirname(keras_lottery.__file__))
    env = os.environ | {"KERAS_BACKEND": "none", "PYTHONPATH": root}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith("keras-lottery: Expected the directory of a search")
    # A command of somebody else's, of the same words, is none of the library's.
    (tmp_path / "mine.py").write_text("import keras_lottery.startup as s\n")
    command[2] = "mine"
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert "directory of a search" not in done.stderr
    assert "none" in done.stderr


@pytest.mark.parametrize(
    ("program", "policy"), [("find_ticket.py", "PASSIVE"), ("mine.py", None)]
)
def test_threads_of_a_command_wait_without_a_loop(monkeypatch, program, policy):
    monkeypatch.setattr(sys, "argv", [program])
    # Undone at the end, whatever is set in between.
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    del os.environ["OMP_WAIT_POLICY"]
    with starting():
        assert os.environ.get("OMP_WAIT_POLICY") == policy


@pytest.mark.slow
@pytest.mark.tensorflow
def test_tensorflow_is_silent_at_the_start_of_a_command(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    command = [sys.executable, "-m", "keras_lottery", "report", str(tmp_path)]
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("keras-lottery: ")
    assert "settings.json" in done.stderr and done.stderr.count("\n") == 1


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
