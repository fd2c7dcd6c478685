"""What a search shows while it works."""

import pytest
from rich.text import Text

from keras_lottery.engines.record import Reached
from keras_lottery.search import progress

pytestmark = pytest.mark.once


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def work(clock, verbose):
    with progress.Progress(5, verbose) as shown:
        shown.leave_out()
        for number in range(4):
            shown.show(f"level {number}", Reached(10, 0.5, 2, 0.25))
            clock[0] += 6
            shown.finish(f"level {number}", "val_accuracy 90.00 %, 6.0 s")


def test_a_log_has_a_line_for_each_training(clock, capsys):
    work(clock, 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"level {number}: val_accuracy 90.00 %" for number in range(4)
    ]
    assert "; 2 of 4 trainings, 0:00:0" in lines[1]
    assert lines[3].endswith("0:00:00 left")


def test_a_log_says_every_minute_what_is_under_way(clock, capsys):
    with progress.Progress(2, 1) as shown:
        for second in range(100):
            clock[0] = second
            shown.show("ticket", Reached())
            shown.show("reinit", Reached(second, second / 50, 8, 0.5))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("ticket: starting; 2 under way; 0 of 2 trainings, ")
    with progress.Progress(2, 1) as shown:
        clock[0] += 60
        shown.show("reinit", Reached(60, 1.5, 8, 0.5))
    assert "reinit: epoch 1.5 of 8, val_loss 0.5; 1 under" in capsys.readouterr().out


def test_a_terminal_has_a_bar_for_each_training(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with progress.Progress(2, 1) as shown:
        shown.show("ticket", Reached(10, 0.5, 8))
        shown.show("reinit", Reached(30, 1.5, 8, 0.5))
        shown.finish("ticket", "val_accuracy 90.00 %, 6.0 s")
    last = capsys.readouterr().out.rpartition("\x1b[2K")[2]
    one, all_ = Text.from_ansi(last).plain.strip().splitlines()
    assert one.startswith("reinit ") and one.endswith("epoch 1.5 of 8, val_loss 0.5")
    assert " 1/2 trainings, " in all_


def test_silence_where_it_is_asked_for(clock, capsys):
    work(clock, 0)
    assert capsys.readouterr() == ("", "")
