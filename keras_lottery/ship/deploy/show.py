"""Formats tables of files as text and as JSON."""

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lottery.engines.objective import ACCURACY, Objective
from keras_lottery.tables import text_table

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "bytes": ("bytes", "{:,.0f}"),
    "gzip_bytes": ("gzip", "{:,.0f}"),
    "p50_us": ("p50 µs", "{:,.1f}"),
    "p90_us": ("p90 µs", "{:,.1f}"),
    "spread": ("spread", "{:.0%}"),
    "memory": ("memory", "{:,.0f}"),
}


def as_text(table: "pd.DataFrame", objective: Objective = ACCURACY) -> str:
    """The table of `benchmark` as aligned lines, with the operators below it."""
    table = table.reset_index(drop=True)
    form = "{:.2%}" if objective.is_share else "{:.4g}"
    known = {
        **COLUMNS,
        f"validation_{objective.metric}": ("validation", form),
        objective.metric: (objective.words, form),
    }
    columns = {key: each for key, each in known.items() if key in table}
    names = short_names(table)
    rows = []
    for name, (_, row) in zip(names, table.iterrows(), strict=True):
        cells = [form.format(row[key]) for key, (_, form) in columns.items()]
        rows.append([name, *("-" if cell == "nan" else cell for cell in cells)])
    text = [text_table(rows, ["file", *(title for title, _ in columns.values())])]
    for operators, files in table.groupby("operators", sort=False):
        if operators:
            text.append(f"{', '.join(names[i] for i in files.index)}: {operators}")
    return "\n".join(text)


def short_names(table: "pd.DataFrame") -> list[str]:
    """The files' paths without the folders that all of them share."""
    files = list(table["file"])
    folders = {os.path.dirname(file) for file in files}
    if len(folders) == 1:
        return [os.path.basename(file) for file in files]
    return files


def as_records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """A dictionary for each row, with values that JSON can hold; NaN is `None`."""
    return [
        {column: _plain(value) for column, value in row.items()}
        for row in table.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value
