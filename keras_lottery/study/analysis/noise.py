"""Trains copies of a net with different noise, and measures how far apart they end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from keras_lottery import checks, engines
from keras_lottery.engines import Task, Training
from keras_lottery.engines.as_in_fit import gather, part
from keras_lottery.engines.choose import check_engine
from keras_lottery.engines.data import Data, check_data, training_steps
from keras_lottery.keras_bridge import architecture
from keras_lottery.keras_bridge import checks as keras_checks
from keras_lottery.keras_bridge.datasets import is_dataset
from keras_lottery.keras_bridge.layers import State, get_masks, get_state, mask_model
from keras_lottery.keras_bridge.layers.convert import Prunable, check_prunable
from keras_lottery.search.progress import Progress
from keras_lottery.search.replicates import derive_seed
from keras_lottery.study.analysis.connectivity import barrier, interpolate
from keras_lottery.tickets import Ticket
from keras_lottery.tickets.rewind import rewind_step
from keras_lottery.tickets.ticket import tickets_of

if TYPE_CHECKING:
    import pandas as pd


def train_rewind_points(
    model: keras.Model,
    x: Any,
    y: Any,
    *,
    test_data: Any,
    at: Sequence[int | str],
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    prunable: Prunable = None,
    engine: str = "auto",
    verbose: int = 1,
) -> list[Ticket]:
    """Trains a dense net to each of several steps k of one training.

    Args:
        model: a compiled model, whose weights are W_0; it is not changed.
        x, y: training inputs and targets: arrays, or structures of them.
        test_data: (x, y) or a data set on which the trainings are evaluated.
        at: the steps k, or epochs such as `"2ep"`.
        epochs: the length of the whole training.
        steps: the same in optimizer steps, instead of `epochs`.
        batch_size: examples in a step.
        seed: the seed of the order of the data.
        prunable: same as `mask_model`.
        engine: same as `engines.make`.
        verbose: 0 is silent; 1 shows progress.

    Returns:
        A dense ticket for each k: W_k, with the steps that remain of the training.

    Raises:
        ValueError: if an argument is out of range, before anything is trained.
        FloatingPointError: if a loss is not a number.
    """
    keras_checks.compiled("model", model)
    _check(batch_size, seed, engine, verbose)
    check_prunable(prunable)
    checks.sequence("at", at, "steps, or epochs such as '2ep', at least one", 1)
    data = _data(x, y, test_data, batch_size)
    length = training_steps(data, epochs, steps, "epoch")
    points = [rewind_step(k, data.steps_per_epoch, length) for k in at]
    masked = mask_model(model, prunable)
    masks, initial = get_masks(masked), get_state(masked)
    text = architecture.to_text(masked)
    prefixes = sorted({k for k in points if k})
    reached: dict[int, State] = {0: initial}
    if prefixes:
        order = derive_seed(seed, 0, "order")
        tasks = [Task(Ticket(masks, initial, 0, k), order) for k in prefixes]
        trained = _train(masked, data, length, tasks, engine, verbose)
        reached |= {k: each.final for k, each in zip(prefixes, trained, strict=True)}
    return [Ticket(masks, reached[k], k, length - k, architecture=text) for k in points]


def train_and_measure_instability(
    tickets: Ticket | Sequence[Ticket],
    x: Any,
    y: Any,
    *,
    test_data: Any,
    pairs: int = 1,
    points: int = 30,
    batch_size: int = 32,
    seed: int = 0,
    engine: str = "auto",
    verbose: int = 1,
) -> "pd.DataFrame":
    """Trains pairs of copies from W_k, and measures the error barrier between them.

    The copies of a pair differ only in the order of the data (and in the random numbers
    of layers such as dropout).

    Args:
        tickets: the tickets to train, each with masks, W_k, step k and the remaining
            steps: those of a stored search (`search.ticket(level)`), or of
            `train_rewind_points` for dense nets. All belong to one network.
        x, y: training inputs and targets: arrays, or structures of them.
        test_data: (x, y) or a data set to measure on.
        pairs: the number of pairs for each ticket.
        points: same as `interpolate`.
        batch_size: examples in a step.
        seed: the seed of the orders of the data.
        engine: same as `engines.make`.
        verbose: 0 is silent; 1 shows progress.

    Returns:
        A row for each pair: `ticket` (its index), `step` (k), `density`, `pair`,
        `error_a` and `error_b` at the ends, `highest_error` on the line, and
        `instability`.

    Raises:
        ValueError: if an argument is out of range, before anything is trained.
        FloatingPointError: if a loss is not a number.

    Reference:
        Frankle et al., [Linear mode connectivity and the lottery ticket hypothesis](
        https://arxiv.org/abs/1912.05671), 2020, algorithm 1.

    Example::

        data = {"test_data": (x_test, y_test)}
        points = {"at": [0, 100], "epochs": 20}
        dense = kl.analysis.train_rewind_points(model, x, y, **points, **data)
        table = kl.analysis.train_and_measure_instability(dense, x, y, **data)
        table[["step", "instability"]]  # near zero from the step on that is stable
    """
    import pandas as pd

    tickets = tickets_of("tickets", tickets)
    if not all(ticket.steps for ticket in tickets):
        raise ValueError(
            "Expected `tickets` with steps to train. Received: tickets of "
            f"{[ticket.steps for ticket in tickets]} steps"
        )
    checks.count("pairs", pairs, 1)
    checks.count("points", points, 2)
    _check(batch_size, seed, engine, verbose)
    data = _data(x, y, test_data, batch_size)
    model = tickets[0].initial_model()
    keras_checks.compiled("tickets", model)
    tasks = [
        Task(ticket, derive_seed(seed, pair, "order", trial=copy))
        for ticket in tickets
        for pair in range(pairs)
        for copy in range(2)
    ]
    length = max(ticket.step + ticket.steps for ticket in tickets)
    ends = iter(_train(model, data, length, tasks, engine, verbose))
    rows = []
    for index, ticket in enumerate(tickets):
        measured = ticket.initial_model()
        for pair in range(pairs):
            states = next(ends).final, next(ends).final
            line = interpolate(measured, *states, test_data, points)
            rows.append(
                {
                    "ticket": index,
                    "step": ticket.step,
                    "density": ticket.masks.density,
                    "pair": pair,
                    "error_a": line["error"].iloc[0],
                    "error_b": line["error"].iloc[-1],
                    "highest_error": line["error"].max(),
                    "instability": barrier(line),
                }
            )
    return pd.DataFrame(rows)


def _check(batch_size: int, seed: int, engine: str, verbose: int) -> None:
    check_engine(engine)
    checks.count("batch_size", batch_size, 1)
    checks.seed("seed", seed)
    checks.verbose("verbose", verbose)


def _data(x: Any, y: Any, test_data: Any, batch_size: int) -> Data:
    if test_data is None:
        raise ValueError("Expected `test_data` to measure on. Received: None")
    check_data("test", part("test", test_data, None))
    data = gather(x, y, validation_data=test_data, batch_size=batch_size)
    if is_dataset(data.train):
        raise ValueError(
            "Expected arrays x and y, whose order the seed draws. Received: a data "
            "set, which has an order of its own."
        )
    return data


def _train(
    model: keras.Model,
    data: Data,
    steps: int,
    tasks: list[Task],
    engine: str,
    verbose: int,
) -> list[Training]:
    """Trains tasks, and returns the trainings in their order; changes the model."""
    trainer = engines.make(
        engine, model, data, steps, trainings=len(tasks), eval_freq=steps
    )
    labels = {task: f"copy {index}" for index, task in enumerate(tasks)}
    trained: dict[Task, Training] = {}
    with Progress(len(tasks), verbose) as progress:
        for task, _, result in trainer.train_all(
            list(tasks), lambda task, reached: progress.show(labels[task], reached)
        ):
            if isinstance(result, FloatingPointError):
                raise result
            trained[task] = result
            progress.finish(labels[task])
    return [trained[task] for task in tasks]
