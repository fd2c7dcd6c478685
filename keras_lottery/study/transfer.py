"""Tickets in a training other than the one that they were found in."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_lottery import engines
from keras_lottery.engines import Work
from keras_lottery.engines.data import training_steps
from keras_lottery.engines.given import gather
from keras_lottery.engines.objective import Objective
from keras_lottery.keras_bridge.internals.models import compile_arguments
from keras_lottery.keras_bridge.layers import get_state, redraw
from keras_lottery.keras_bridge.layers.convert import fresh_optimizer
from keras_lottery.masks import Masks
from keras_lottery.search import results
from keras_lottery.search.progress import Progress
from keras_lottery.search.replicates import derive_seed
from keras_lottery.search.store import Unit
from keras_lottery.search.trainings import row
from keras_lottery.tickets import Snapshot, Ticket, grouping
from keras_lottery.tickets import controls as control_registry
from keras_lottery.tickets.carry_over import Replace, carry_over
from keras_lottery.tickets.controls import Control

if TYPE_CHECKING:
    import pandas as pd


def compare_transfer(
    ticket: Ticket | Sequence[Ticket],
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any,
    test_data: Any = None,
    optimizer: str | keras.optimizers.Optimizer | None = None,
    replace: Replace = (),
    controls: Mapping[str, int | tuple[Control, int]] | Sequence[str] | None = (
        "reinit",
        "random",
    ),
    objective: str | Objective | None = None,
    replicates: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    epochs: int | None = None,
    steps: int | None = None,
    eval_freq: int | str = "epoch",
    engine: str = "auto",
    verbose: int = 1,
) -> "pd.DataFrame":
    """Trains a ticket in another training, beside its controls and the dense network.

    Args:
        ticket: the ticket, or one for each replicate.
        model: a compiled model; what `Ticket.transfer` makes of it and the ticket is
            trained. Its weights are those of the dense network, and of the layers that
            do not come from the ticket, in replicate 0; further replicates draw theirs
            from its initialisers. It is not changed.
        x, y: training data, same as in `LotteryTicketSearch.search`.
        validation_data: (x, y) or a data set; finds the early stop.
        test_data: (x, y) or a data set; is reported.
        optimizer: trains instead of the model's own.
        replace: as of `Ticket.transfer`.
        controls: as of `LotteryTicketSearch`. Controls draw from the model's
            initialisers; their masks have the ticket's granularity.
        objective: same as in `LotteryTicketSearch`.
        replicates: how many times all is repeated, with other weights of the dense
            network and another order of the data. One for each ticket by default.
        seed: of everything that is random.
        batch_size, epochs, steps, eval_freq, verbose: as of
            `LotteryTicketSearch.search`. Every training is of the same length, from
            the start of the model's learning-rate schedule.
        engine: as of `engines.make`.

    Returns:
        A table like that of `LotteryTicketSearch.results`: at level 0 the dense
        network, at level 1 the ticket and its controls. `results.verdict` reads it.

    Raises:
        ValueError: if an argument is out of range, the ticket does not fit the model,
            or a control needs what the ticket does not have, such as scores, or
            starting weights that its file left out; nothing has been trained then.
        FloatingPointError: if a loss is not a number.

    Reference:
        Morcos et al. 2019, "One ticket to win them all: generalizing lottery ticket
        initializations across datasets and optimizers", section 3.

    Example:

    ```python
    ticket = kl.load_ticket("winner.ticket")
    table = kl.compare_transfer(
        ticket, model, x, y, validation_data=validation, epochs=8, replicates=5
    )
    kl.results.verdict(table)
    ```
    """
    tickets = [ticket] if isinstance(ticket, Ticket) else list(ticket)
    replicates = len(tickets) if replicates is None else replicates
    if replicates < 1 or len(tickets) not in (1, replicates):
        raise ValueError(
            "Expected at least 1 replicate, and a ticket or one for each. Received: "
            f"replicates={replicates} and {len(tickets)} tickets"
        )
    if not isinstance(model, keras.Model) or not model.compiled:
        raise ValueError(
            f"Expected a compiled model. Received: model={model!r}. Call "
            "`model.compile(optimizer, loss, metrics=['accuracy'])` first."
        )
    resolved = control_registry.resolve(control_registry.trials(controls))
    data = gather(
        x,
        y,
        validation_data=validation_data,
        test_data=test_data,
        batch_size=batch_size,
    )
    length = training_steps(data, epochs, steps, eval_freq)
    carried = [
        carry_over(each.masks, each.weights, each.architecture, model, replace)
        for each in tickets
    ] * (replicates // len(tickets))
    if len({frozenset(each.masks) for each in carried}) > 1:
        raise ValueError("Expected tickets of one network. Received: several")
    masked = carried[0].model
    forms = [
        grouping.get(each.granularity).of(masked)
        for each in tickets
        if resolved  # The graph of a network of filters is followed for controls alone.
    ]
    forms *= replicates // len(tickets)
    own = get_state(masked)
    if optimizer is not None:
        given = fresh_optimizer(keras.optimizers.get(optimizer))
        masked.compile(**{**compile_arguments(masked), "optimizer": given})
    trainer = engines.make(
        engine, masked, data, length, eval_freq=eval_freq, objective=objective
    )
    works: dict[Unit, Work] = {}
    for replicate, part in enumerate(carried):
        if replicate:
            own = redraw(masked, derive_seed(seed, replicate, "initial"))
        order = derive_seed(seed, replicate, "order")
        everything = Masks.dense({n: mask.shape for n, mask in part.masks.items()})
        dense = Ticket(everything, own, steps=length)
        works[Unit(replicate, 0, "ticket")] = Work(dense, order)
        start = {**own, **part.weights}
        transferred = Ticket(part.masks, start, steps=length)
        works[Unit(replicate, 1, "ticket")] = Work(transferred, order)
        for name, control, trial in resolved:
            rng = np.random.default_rng(derive_seed(seed, replicate, name, 1, trial))
            snapshot = Snapshot(
                part.masks,
                start,
                start,
                start,
                rng,
                masked,
                data.arrays,
                grouping=forms[replicate],
            )
            make = partial(_control, name, control, transferred, snapshot=snapshot)
            if replicate == trial == 0:
                # What a control cannot do is known before any training.
                make(snapshot=dataclasses.replace(snapshot, rng=copy.deepcopy(rng)))
            works[Unit(replicate, 1, name, trial)] = Work(make, order)
    return results.tabulate(_train(trainer, works, verbose), trainer.objective)


def _control(name: str, control: Control, ticket: Ticket, snapshot: Snapshot) -> Ticket:
    made = control_registry.apply(control, ticket, snapshot)
    for weight, mask in made.masks.items():
        if np.isnan(made.weights[weight][mask].astype("float64")).any():
            raise ValueError(
                f"The control '{name}' trains starting weights of `{weight}` that the "
                "ticket's file left out. Save the ticket with weights='all'."
            )
    return made


def _train(
    engine: engines.Engine, works: Mapping[Unit, Work], verbose: int
) -> Iterator[dict[str, Any]]:
    """Yields a row of the table for each training."""
    units, sparsities = list(works), {}

    def make(unit: Unit) -> Ticket:
        ticket = works[unit].make()
        sparsities[unit] = ticket.masks.sparsity
        return ticket

    def show(index: int, step: int) -> None:
        unit = units[index]
        progress.show(f"replicate {unit.replicate}: {unit.variant}", step)

    todo = [works[unit]._replace(ticket=partial(make, unit)) for unit in units]
    with Progress(len(works), verbose) as progress:
        for index, training in engine.train_all(todo, show):
            unit = units[index]
            if isinstance(training, FloatingPointError):
                raise FloatingPointError(
                    f"In the training of {unit}: {training}"
                ) from training
            progress.finish()
            meta = {**unit._asdict(), "step": 0, "sparsity": sparsities[unit]}
            yield row({**meta, "metrics": training.metrics})
