"""`keras-lottery reproduce`."""

import os
import runpy
import signal
import sys
import time

import pandas as pd
import pytest

from keras_lottery import cli
from keras_lottery.cli import reproduce_command as reproduce
from keras_lottery.papers.experiments import EXPERIMENTS

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_experiments_are_listed_one_a_line(capsys, tmp_path):
    assert cli.main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert all("smoke: " in line and "paper: " in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_list_has_the_times_of_runs_that_ended(capsys, tmp_path):
    for name, text in {
        "layers_cpu": '{"seconds": 5400.0}',
        "layers_smoke": '{"seconds": 4}',
        "renda_cpu": '{"experiment": "renda", "scale": "cpu"}',
    }.items():
        folder = tmp_path / "runs" / "reproduce" / name
        folder.mkdir(parents=True)
        (folder / "reproduction.json").write_text(text)
    cli.main(["reproduce", "--list"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "measured: 90 minutes of training; paper: " in lines["layers"]
    assert "measured: 4 s of training; cpu: " in lines["layers"]
    assert sum("measured" in line for line in lines.values()) == 1


@pytest.mark.parametrize("text", ["{", "[5]", '{"seconds": "many"}'])
def test_a_list_names_what_is_damaged_and_has_the_rest(capsys, tmp_path, text):
    folder = tmp_path / "runs" / "reproduce" / "layers_cpu"
    folder.mkdir(parents=True)
    (folder / "reproduction.json").write_text(text)
    assert cli.main(["reproduce", "--list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    path = os.path.join("runs", "reproduce", "layers_cpu", "reproduction.json")
    assert f"measured: unknown, '{path}' is damaged; paper: " in lines["layers"]
    assert list(lines) == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--list"]),
        (["layer"], ["layer", "layers", "frankle_carbin"]),
        (["layers", "--scale", "huge"], ["--scale", "'huge'", "smoke"]),
        (
            ["renda_resnet_56", "--scale", "cpu"],
            ["renda_resnet_56", "smoke", "paper", "'cpu'"],
        ),
        (["renda_resnet_56"], ["renda_resnet_56", "smoke", "paper", "'cpu'"]),
        (["layers", "--levels", "3"], ["--levels"]),
        (["layers", "--all"], ["--all", "not both"]),
        (["layers", "renda_resnet_56"], ["renda_resnet_56", "'cpu'"]),
        (["layers", "renda", "--directory", "here"], ["--directory", "one"]),
        (["layers", "--hours", "0"], ["--hours", "'0'"]),
    ],
)
def test_a_bad_value_is_named_in_one_line(capsys, tmp_path, arguments, words):
    try:
        code = cli.reproduce(arguments)
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert all(word in message for word in words), message
    assert not list(tmp_path.iterdir())


def test_missing_data_are_named_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nowhere"))
    assert cli.reproduce(["layers", "--verbose", "0"]) == 2
    assert "mnist" in capsys.readouterr().err


def test_a_run_goes_where_it_is_told_and_ends_with_the_table(capsys, monkeypatch):
    asked = []

    def run(experiment, scale, directory, verbose):
        asked.append((experiment.name, scale, str(directory)))
        cells = {head: "a few words" for head in ("claim", "published", "measured")}
        return pd.DataFrame([cells | {"verdict": "reproduced", "source": "there"}])

    monkeypatch.setattr("keras_lottery.papers.experiments.reproduce", run)
    assert cli.reproduce(["renda", "--scale", "smoke"]) == 0
    assert cli.reproduce(["renda", "--directory", "here"]) == 0
    assert asked == [
        ("renda", "smoke", "runs/reproduce/renda_smoke"),
        ("renda", "cpu", "here"),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == EXPERIMENTS["renda"].title
    assert lines[3].split() == ["claim", "published", "measured", "verdict"]
    assert lines[4].split()[-1] == "reproduced"
    assert lines[-1] == "here: README.md, tables and figures"


def test_all_of_a_scale_run_but_those_that_ended(capsys, monkeypatch, tmp_path):
    asked = []

    def run(experiment, scale, directory, verbose):
        asked.append(experiment.name)
        if experiment.name == "renda":
            raise FileNotFoundError("No data of Renda's.")
        return pd.DataFrame()

    monkeypatch.setattr("keras_lottery.papers.experiments.reproduce", run)
    folder = tmp_path / "runs" / "reproduce" / "layers_cpu"
    folder.mkdir(parents=True)
    (folder / "reproduction.json").write_text('{"seconds": 5400.0}')
    assert cli.reproduce(["--all", "--verbose", "0"]) == 1
    having = [name for name, each in EXPERIMENTS.items() if "cpu" in each.scales]
    assert asked == [name for name in having if name != "layers"]
    said = capsys.readouterr()
    assert "layers: finished before, see runs" in said.out
    assert "renda: No data of Renda's." in said.err
    assert "Not finished: renda." in said.err


def test_hours_end_a_command_as_ctrl_c_does(capsys, monkeypatch):
    def run(*given):
        time.sleep(60)

    monkeypatch.setattr("keras_lottery.papers.experiments.reproduce", run)
    # As a shell does for what it starts in the background.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    began = time.monotonic()
    try:
        assert cli.reproduce(["layers", "--hours", "1e-4"]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    if hasattr(signal, "pthread_kill"):
        assert time.monotonic() - began < 30
    assert "again to go on" in capsys.readouterr().err


def test_long_claims_are_wrapped():
    row = {"claim": "word " * 20, "published": "1", "measured": "2", "verdict": "no"}
    lines = reproduce.verdict_table(pd.DataFrame([row])).splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 115


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["reproduce", "layers", "--scale", "smoke"], "again to go on."),
        (["find", "--overwrite"], "again, without --overwrite, to go on."),
        (["find"], "again to go on."),
    ],
)
def test_who_stops_a_command_is_told_how_to_go_on(capsys, monkeypatch, command, words):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_lottery.papers.experiments.reproduce", stop)
    monkeypatch.setattr(cli.find_command, "_find", stop)
    assert cli.main(command) == 130
    assert capsys.readouterr().err == f"Stopped. Run the command {words}\n"


def test_the_package_is_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["keras_lottery", "reproduce", "--list"])
    monkeypatch.delitem(sys.modules, "keras_lottery.__main__", raising=False)
    with pytest.raises(SystemExit) as exit:
        runpy.run_module("keras_lottery", run_name="__main__")
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith("frankle_carbin")
