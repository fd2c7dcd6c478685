"""A figure as part of a page: its text is text, its colours are the page's."""

import io
import re
from xml.etree import ElementTree

from keras_lottery.study.report.figures import MUTED, SEQUENCE, Panel

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"


def variables() -> dict[str, str]:
    """The page's name of each colour that the figures are drawn in.

    >>> variables()["#000000"]
    'ink'
    """
    import matplotlib
    from matplotlib.colors import to_hex

    categories = {
        to_hex(color): f"c{index}"
        for index, color in enumerate(matplotlib.color_sequences["petroff6"])
    }
    sequence = {color: f"s{index}" for index, color in enumerate(SEQUENCE)}
    grays = {"#000000": "ink", "#333333": "ink", "#e6e6e6": "grid", "#b2b2b2": "frame"}
    return categories | sequence | grays | {MUTED: "muted"}


def inline(panel: Panel) -> str:
    """An `<svg>` element that takes its colours and font from the page's style."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": panel.name}):
        panel.figure.savefig(
            file, format="svg", transparent=True, metadata={"Date": None}
        )
    root = ElementTree.fromstring(file.getvalue())
    for part in [*root.findall(f"{_SVG}metadata"), *root.findall(f"{_SVG}defs")]:
        if part.find(f"{_SVG}clipPath") is None:
            root.remove(part)
    names = variables()
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            element.set(key.removeprefix(_XLINK), _adapt(key, value, panel, names))
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": panel.alt,
    }
    return ElementTree.tostring(root, "unicode", short_empty_elements=False)


def _adapt(key: str, value: str, panel: Panel, names: dict[str, str]) -> str:
    """An attribute without what differs between this page and a file of its own."""
    if key == "style":
        value = re.sub(r" *font-family:[^;]*;?", "", value)
        for color in re.findall(r"#[0-9a-f]{6}", value):
            if color in names:
                value = value.replace(color, f"var(--{names[color]})")
        return value
    # Figures of one page need ids of their own.
    if key == "id":
        return f"{panel.name}-{value}"
    return re.sub(r"^#|(?<=url\()#", f"#{panel.name}-", value)
