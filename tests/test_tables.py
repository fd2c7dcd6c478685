"""Text tables: aligned, plain, whatever is in their cells."""

import pytest

from keras_lottery.tables import text_table

pytestmark = pytest.mark.once


def test_words_are_to_the_left_and_numbers_to_the_right():
    rows = [["a", "1.5 %", "-"], ["bcd", "10 %", "b"]]
    assert text_table(rows, ["name", "share", "note"]).splitlines() == [
        "name  share  note",
        "a     1.5 %  -",
        "bcd    10 %  b",
    ]
    assert text_table(rows).splitlines()[0] == "a    1.5 %  -"


def test_cells_are_no_markup():
    assert text_table([["[b]x[/b] :smile:", "1"]]) == "[b]x[/b] :smile:  1"


def test_lines_are_as_long_as_they_are():
    assert text_table([["word " * 100 + "end", "1"]]).count("\n") == 0


def test_columns_wrap_where_they_are_told_to():
    lines = text_table([["word " * 4, "1"]], ["a", "b"], {"a": 10}).splitlines()
    assert [line.split() for line in lines[1:]] == [["word", "word", "1"], ["word"] * 2]


def test_a_table_without_rows_is_its_header():
    assert text_table([], ["a", "b"]) == "a  b"


def test_terminals_change_nothing(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "5")
    assert text_table([["one", "two"]]) == "one  two"
