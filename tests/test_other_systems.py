"""Habits of other systems: processes that are not forks, and paths of any letters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_lottery as kl

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.once]

# As on macOS and Windows there is no fork, and as on Windows files and pipes have an
# encoding of their own, unless one is named.
NO_FORK = """
import multiprocessing, os, warnings

def no_fork():
    raise OSError("there is no fork")

os.fork = no_fork
multiprocessing.set_start_method("spawn")
warnings.filterwarnings("error", category=EncodingWarning, module="keras_lottery")

import keras_lottery as kl
"""
CODE = """
from keras_lottery import cli

find = ["find", "--levels", "1", "--epochs", "1", "--workers", "1"]
find += ["--directory", "a run, é 試", "--saved-models", "for üse"]
assert cli.main([*find, "--replicates", "1", "--export", "none"]) == 0
assert cli.main([*find, "--replicates", "2"]) == 0
assert cli.main(["report", "a run, é 試", "--figures", "füll of figures"]) == 0
kl.Run.load("a run, é 試").ticket(1).save("a tïcket.ticket")
print("\N{MINUS SIGN}1")
"""
# `Process.kill` is SIGKILL, and on Windows TerminateProcess: nothing is tidied up.
KILLED = """
import keras, numpy as np, psutil

class Killed(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2 and os.path.exists("kill"):
            os.remove("kill")
            psutil.Process().kill()

def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    return model

data = np.ones((32, 4), "float32"), np.ones((32, 3), "float32")
tables = []
for name in ("killed", "unbroken"):
    open("kill", "wb").close() if name == "killed" else None
    search = kl.LotteryTicketSearch(
        build, [0.5], controls={}, objective="val_loss", directory=name, workers=1
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.search(*data, validation_data=data, batch_size=8, epochs=1, verbose=0,
                      callbacks=[Killed()])
    died = ["A worker died" in str(warning.message) for warning in caught]
    assert any(died) == (name == "killed"), caught
    tables.append(search.results().drop(columns="seconds"))
assert len(tables[0]) == 2 and tables[0].equals(tables[1])
"""


def test_a_search_without_fork_in_a_place_with_an_odd_name(tmp_path):
    folder = tmp_path / "an odd name: żółw, 試"
    folder.mkdir()
    script = folder / "a scrïpt.py"
    script.write_text(NO_FORK + CODE, "utf-8")
    run = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        text=True,
        encoding="cp1252",
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines()[-1] == r"\N{MINUS SIGN}1"
    found = kl.Run.load(folder / "a run, é 試")
    assert len(found.training_ids()) == len(found.expected()) == 6
    assert found.ticket(1).masks == kl.load_ticket(folder / "a tïcket.ticket").masks
    for path in (
        *("a run, é 試/table.txt", "a run, é 試/report.html"),
        "for üse/digits_lenet_300_100/ticket.keras",
        "for üse/digits_lenet_300_100/ticket.tflite",
        "for üse/digits_lenet_300_100/saved_model/saved_model.pb",
    ):
        assert (folder / path).stat().st_size, path
    assert list((folder / "füll of figures").glob("*.svg"))


def test_a_worker_without_fork_is_killed_and_its_training_done_again(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", NO_FORK + KILLED],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert not (tmp_path / "kill").exists()
