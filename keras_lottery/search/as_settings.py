"""The arguments of a search as stored settings, and back."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery.files import CorruptedFileError
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge.internals.optimizers import exclude_from_decay
from keras_lottery.keras_bridge.layers import set_state
from keras_lottery.keras_bridge.layers.names import named_variables
from keras_lottery.search import stored
from keras_lottery.search.records import Reader
from keras_lottery.search.settings import restore, stored_objective
from keras_lottery.search.store import Store
from keras_lottery.search.stored import read_checked
from keras_lottery.tickets import allocation as allocations
from keras_lottery.tickets import repair as repairs
from keras_lottery.tickets.allocation import Allocation
from keras_lottery.tickets.rewind import FineTune, Rewind
from keras_lottery.tickets.schedules import Schedule

if TYPE_CHECKING:
    from keras_lottery.search.search import LotteryTicketSearch


def arguments_to_store(
    search: "LotteryTicketSearch", allocation: Allocation, model: keras.Model
) -> dict[str, Any]:
    """What the constructor was given, to be stored.

    Args:
        search: the search.
        allocation: the one that its argument `allocation` stands for.
        model: its masked model.
    """
    own = not search.schedule.by_layer and dataclasses.is_dataclass(allocation)
    return {
        "schedule": search.schedule,
        "criterion": search.criterion,
        # Of a function, the name that it was asked for by.
        "allocation": allocation if own else search.allocation,
        "granularity": search.granularity,
        "rewind": search.rewind,
        "rewind_to": search.rewind_to,
        "repair": search.repair,
        "prune_at_init": search.prune_at_init,
        "pretrained": search.pretrained,
        "seed": search.seed,
        "replicates": search.replicates,
        "controls": search.controls,
        "report_levels": search.report_levels,
        "architecture": architecture.to_text(model),
    }


def stored_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `LotteryTicketSearch`, except the model, from stored settings.

    Raises:
        ValueError, TypeError: if a function or class of the user's own is needed that
            is not available here.
    """
    return {
        "schedule": restore(settings["schedule"], Schedule),
        "criterion": settings["criterion"],
        "allocation": restore(settings["allocation"], *allocations.classes()),
        "granularity": restore(settings["granularity"]),
        "rewind": restore(settings["rewind"], Rewind, FineTune),
        "rewind_to": settings["rewind_to"],
        "repair": restore(settings["repair"], *repairs.KINDS),
        "controls": settings["controls"],
        "objective": stored_objective(settings),
        "replicates": settings["replicates"],
        "report_levels": settings["report_levels"],
        "seed": settings["seed"],
        "prune_at_init": settings["prune_at_init"],
        "pretrained": settings["pretrained"],
        "compact": settings["compact"],
    }


def stored_model(settings: Mapping[str, Any], store: Store) -> keras.Model:
    """The model of a stored search, with the weights that replicate 0 starts from.

    Raises:
        ValueError, TypeError: same as `stored_arguments`.
    """
    model = architecture.from_text(settings["architecture"])
    with contextlib.suppress(FileNotFoundError, CorruptedFileError):
        set_state(model, Reader(store).initial(0))
    how = settings["model"]["optimizer"]
    if excluded := how.get("excluded_from_weight_decay"):
        exclude_from_decay(model.optimizer, excluded, named_variables(model))
    return model


def stored_margin(store: Store) -> float | str:
    """The margin that a search began with; by default, `"auto"`."""
    if not store.settings.exists():
        return "auto"
    return read_checked(store.settings, stored.Growing).get("margin", "auto")
