"""Pieces of HTML; whatever they are given as text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from keras_lottery.study.report.figures import Panel
from keras_lottery.study.report.svg import inline


def table(
    caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = ""
) -> str:
    """A table that scrolls by itself where it is too wide; first cells head the rows.

    >>> "<td>&lt;b&gt;</td>" in table("Names", ["level", "name"], [["0", "<b>"]])
    True
    """
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    lines = []
    for first, *cells in rows:
        line = "".join(f"<td{_kind(cell)}>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{line}</tr>')
    caption = escape(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
        f'<table class="{kind}"><caption><span>{caption}</span></caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>"
        + "\n".join(lines)
        + "</tbody></table></div>"
    )


def _kind(cell: str) -> str:
    """How a cell looks: words to the left, and a win in green."""
    if cell.startswith("winning"):
        return ' class="text wins"'
    return ' class="text"' if cell[:1].isalpha() else ""


def figures(panels: Iterable[Panel]) -> str:
    """Figures beside each other, as many as there is room for."""
    parts = [
        f"<figure>{inline(panel)}<figcaption>{escape(panel.caption)}</figcaption></figure>"
        for panel in panels
    ]
    return f'<div class="figures">{"".join(parts)}</div>' if parts else ""


def section(title: str, *parts: str) -> str:
    """A section, or nothing if it has no content."""
    content = "\n".join(part for part in parts if part)
    return (
        f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph."""
    return f'<p class="{kind}">{escape(text)}</p>'


def details(summary: str, content: str) -> str:
    """What is folded away until it is asked for."""
    if not content:
        return ""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def tiles(items: Iterable[tuple[str, str, str]]) -> str:
    """Key figures: what, the figure, and what it is compared with."""
    return "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(figure)}</dd><dd>{escape(more)}</dd></div>"
        for what, figure, more in items
    )
