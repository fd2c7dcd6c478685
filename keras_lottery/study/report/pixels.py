"""The first layer's masks as images, which show what inputs a ticket still reads."""

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.study.report.content import Content, Replicate, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 4
_MOST_LEVELS, _MOST_FILTERS = 24, 64
# Layers that pass on pixels unchanged, or transform each on its own.
_OF_PIXELS = {
    *("InputLayer", "Flatten", "Rescaling", "Normalization", "Dropout"),
    *("GaussianNoise", "GaussianDropout", "Activation", "Identity"),
}
_BLUE = (0.10, 0.42, 0.86)


def first_layer(
    content: Content, replicate: Replicate
) -> tuple[str, str, "Figure"] | None:
    """Caption, alternative text and figure, if the first layer can be drawn."""
    from matplotlib.figure import Figure

    mask = replicate.first[min(replicate.first)]
    shape = _image_shape(content, replicate)
    pixels = mask.ndim == 2 and shape is not None and math.prod(shape) == len(mask)
    if not pixels and (mask.ndim != 4 or max(mask.shape[:2]) < 2):
        return None
    levels = sorted(replicate.first)
    if len(levels) > _MOST_LEVELS:
        places = np.linspace(0, len(levels) - 1, _MOST_LEVELS).round().astype(int)
        levels = [levels[place] for place in places]
    columns = min(COLUMNS, len(levels))
    rows = math.ceil(len(levels) / columns)
    figure = Figure(figsize=(3.9, 0.2 + 1.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    seen = []
    for axes, level in zip(grid.flat, levels, strict=False):
        left = replicate.first[level]
        image = _pixels(left, shape) if pixels and shape else _filters(left)
        alive = _seen(left)
        seen.append(f"level {level}: {alive}")
        axes.imshow(_shades(image), interpolation="none")
        axes.set_title(f"{percent(content.density(level))}\n{alive}", fontsize=8)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("0.7")
    for axes in grid.flat[len(levels) :]:
        axes.set_visible(False)
    name = next(iter(replicate.layers[levels[0]])).removesuffix("/kernel")
    if pixels:
        caption = (
            f"What {name} still sees of the input: the bluer a pixel, the more weights "
            "read it, relative to the maximum of the level; blank pixels are not seen. "
            "The titles give the share of weights left and the number of pixels seen."
        )
    else:
        count = mask.shape[-1]
        some = f"the first {_MOST_FILTERS} of " if count > _MOST_FILTERS else ""
        caption = (
            f"The filters of {name}, {some}{count}: the bluer a weight, the more input "
            "channels have it. The titles give the share of weights left and the "
            "number of filters left."
        )
    caption += f" Replicate {replicate.number}."
    return caption, f"Images. {caption} By level: {'; '.join(seen)}.", figure


def _image_shape(content: Content, replicate: Replicate) -> tuple[int, int, int] | None:
    """Height, width and channels, if the first masked layer sees pixels."""
    settings = content.settings
    # Arrays give "(897, 8, 8, 1) float32 …"; data sets give "(TensorSpec(shape=…".
    found = re.search(r"\((?:None|\d+)((?:, \d+)+)\)", str(settings["train"]))
    if found is None:
        return None
    shape = tuple(map(int, found[1].split(", ")[1:]))
    height, width, channels = (*shape, 1) if len(shape) == 2 else (*shape, 0, 0)[:3]
    if len(shape) > 3 or min(height, width) < 2 or channels not in range(1, 5):
        return None
    first = next(iter(replicate.layers[min(replicate.layers)])).rpartition("/")[0]
    for path, layer in settings["model"]["layers"].items():
        if path == first:
            return height, width, channels
        if layer["class"] not in _OF_PIXELS:
            return None
    return None


def _seen(mask: np.ndarray) -> str:
    """How many inputs, or filters, have a remaining weight, in words."""
    axis: int | tuple[int, ...] = 1 if mask.ndim == 2 else (0, 1, 2)
    alive = mask.any(axis=axis)
    return f"{alive.sum()} of {alive.size}"


def _pixels(mask: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The number of weights of each pixel."""
    return mask.reshape(*shape[:2], -1).sum(axis=-1)


def _filters(mask: np.ndarray) -> np.ndarray:
    """The number of weights at each position of a filter, with filters side by side."""
    height, width, _, count = mask.shape
    count = min(count, _MOST_FILTERS)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    image = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1))
    for index in range(count):
        row, column = divmod(index, columns)
        top, left = row * (height + 1), column * (width + 1)
        image[top : top + height, left : left + width] = mask[..., index].sum(axis=2)
    return image


def _shades(counts: np.ndarray) -> np.ndarray:
    """One colour whose opacity grows with the count, on any background."""
    share = counts / max(1, counts.max())
    image = np.empty((*counts.shape, 4))
    image[..., :3] = _BLUE
    image[..., 3] = np.where(share > 0, 0.2 + 0.8 * share, 0)
    return image
