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
