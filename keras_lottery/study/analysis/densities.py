"""The densities of a ticket's layers."""

from typing import TYPE_CHECKING

import numpy as np

from keras_lottery.keras_bridge import checks
from keras_lottery.masks import Masks
from keras_lottery.search.run import Run, check_run
from keras_lottery.tickets import Ticket

if TYPE_CHECKING:
    import pandas as pd


def layer_densities(masks: Masks | Ticket) -> "pd.DataFrame":
    """The share of remaining weights in each layer.

    Args:
        masks: a ticket, or its masks.

    Returns:
        A row for each weight, and `"total"` for all: `weight`, `kept`, `size`,
        `density`.

    Example:

    >>> layer_densities(Masks({"hidden/kernel": [True, False]}))
              weight  kept  size  density
    0  hidden/kernel     1     2      0.5
    1          total     1     2      0.5
    """
    import pandas as pd

    if isinstance(masks, Ticket):
        masks = masks.masks
    checks.masks("masks", masks)
    counts = [(n, int(np.count_nonzero(mask)), mask.size) for n, mask in masks.items()]
    counts.append(("total", masks.kept, masks.size))
    table = pd.DataFrame(counts, columns=["weight", "kept", "size"])
    table["density"] = table["kept"] / table["size"]
    return table


def densities_by_level(search: Run) -> "pd.DataFrame":
    """The share of remaining weights in each layer of a search's tickets.

    Args:
        search: a `LotteryTicketSearch` or a `Run`, finished or not.

    Returns:
        The rows of `layer_densities` for each stored ticket, with `level` and
        `replicate`.

    Raises:
        ValueError: if `search` is no search, or no ticket is stored.
    """
    import pandas as pd

    check_run("search", search)
    tables = []
    for which in search.training_ids():
        if which.variant != "ticket":
            continue
        table = layer_densities(search.masks(which.level, which.replicate))
        table.insert(0, "level", which.level)
        table.insert(1, "replicate", which.replicate)
        tables.append(table)
    if not tables:
        raise ValueError(
            f"There is no ticket in '{search.directory}': call `search` first."
        )
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values(["level", "replicate"], kind="stable", ignore_index=True)
