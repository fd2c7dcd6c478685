"""What a search shows while it works."""

import pytest

from keras_lottery.search import progress

pytestmark = pytest.mark.once


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def work(clock, verbose):
    with progress.Progress(4, verbose) as shown:
        for number in range(4):
            shown.show(f"level {number}", 5)
            clock[0] += 6
            shown.finish()


def test_a_log_has_a_line_every_ten_seconds(clock, capsys):
    work(clock, 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "level 1 (step 5): 2 of 4 trainings",
        "level 3 (step 5): 4 of 4 trainings",
    ]
    assert " gone" in lines[0]
    assert lines[1].endswith("0:00:00 left")


def test_silence_where_it_is_asked_for(clock, capsys):
    work(clock, 0)
    assert capsys.readouterr() == ("", "")
