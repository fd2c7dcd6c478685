"""Tables as plain text, for a terminal or a file."""

import io
from collections.abc import Iterable, Mapping, Sequence


def text_table(
    rows: Iterable[Sequence[str]],
    header: Sequence[str] = (),
    wrap: Mapping[str, int] | None = None,
) -> str:
    """Formats rows as aligned lines, with words to the left and numbers to the right.

    Args:
        rows: the cells of each row.
        header: the names of the columns; if empty, there is no header.
        wrap: the maximal width of columns in characters, by name; longer cells take
            several lines.

    Example:

    >>> print(text_table([["dense", "1,000"], ["sparse", "30"]], ["file", "bytes"]))
    file    bytes
    dense   1,000
    sparse     30
    """
    from rich.console import Console
    from rich.table import Table

    rows = [list(row) for row in rows]
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(header)
    )
    for index in range(len(header) or len(rows[0])):
        name = header[index] if header else ""
        words = any(letter.isalpha() for row in rows for letter in row[index])
        table.add_column(
            name,
            justify="left" if words else "right",
            max_width=(wrap or {}).get(name),
        )
    for row in rows:
        table.add_row(*row)
    file = io.StringIO()
    # The lines are the same in a terminal, a notebook and a pipe; cells have no markup.
    Console(
        file=file,
        width=10_000,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
    ).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
