"""Trains many tickets in one program: `jax.vmap` over the fused engine's loop.

A small network leaves most of an accelerator idle. This engine stacks the weights,
masks, optimizer slots and data orders of many tickets, and takes each step for all of
them at once.
"""

import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from keras_lottery.engines.evaluation import EVALUATION_BATCH
from keras_lottery.engines.fused import FusedEngine, free_memory
from keras_lottery.engines.loop_jax import values
from keras_lottery.engines.record import Reached, TrainingRecord
from keras_lottery.engines.task import Done, Facts, Task, Training
from keras_lottery.keras_bridge.graph import output_shapes
from keras_lottery.keras_bridge.layers import named_variables, walk
from keras_lottery.keras_bridge.layers.state import State
from keras_lottery.tickets import Ticket

Result = Training | FloatingPointError


class Programs(NamedTuple):
    """The compiled functions of stacks; tickets are the first axis of their arrays."""

    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    choose: Callable[..., Any]


class VectorizedEngine(FusedEngine):
    """Trains the tickets of one call together, on JAX.

    The arguments are the same as those of `Engine`. Tickets that start at the same step
    and train for equally long are stacked, as many as fit into memory; each has its own
    validations and its own end. A ticket's `seconds` are its share of the stack's time.
    Results may differ in their last bits with the number of tickets.
    """

    name = "vectorized"
    most = sys.maxsize

    def train_all(
        self,
        waiting: list[Task],
        progress: Callable[[Task, Reached], None] = lambda task, reached: None,
    ) -> Iterator[Done]:
        """Same as `Engine.train_all`; all waiting tasks are trained together."""
        while waiting:
            if len(waiting) == 1 or self._compiled() is None:
                task = waiting.pop(0)
                yield self.do(task, partial(progress, task))
            else:
                batch = waiting[:]
                waiting.clear()
                yield from self._train_batch(batch, progress)

    def _train_batch(
        self, tasks: Sequence[Task], progress: Callable[[Task, Reached], None]
    ) -> Iterator[Done]:
        tickets = [task.make(self.model, self.data.examples) for task in tasks]
        groups = defaultdict(list)
        for index, ticket in enumerate(tickets):
            groups[ticket.step, ticket.steps].append(index)
        at_once = self._at_once()
        for waiting in groups.values():
            while waiting:
                # Stacks have about the same size, so that few are compiled.
                chunk = waiting[: math.ceil(len(waiting) / -(-len(waiting) // at_once))]
                records = [
                    TrainingRecord(
                        self,
                        tickets[index],
                        partial(progress, tasks[index]),
                        tasks[index].stop,
                        tasks[index].keep_at,
                    )
                    for index in chunk
                ]
                seeds = [tasks[index].seed for index in chunk]
                try:
                    stack = _Stack(self, [tickets[i] for i in chunk], seeds, records)
                    results = stack.train()
                except RuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error) or len(chunk) == 1:
                        raise
                    at_once = len(chunk) // 2
                    continue
                for index, result in zip(chunk, results, strict=True):
                    task, facts = tasks[index], Facts.of(tickets[index])
                    if isinstance(result, Training):
                        result = task.kept(result)
                    yield Done(task, facts, result)
                waiting = waiting[len(chunk) :]

    @cached_property
    def programs(self) -> Programs:
        """The compiled functions of stacks."""
        import jax
        import jax.numpy as jnp

        loop: Any = self._loop
        train = jax.vmap(loop.steps, (0, 0, None, 0, None, None))
        evaluate = jax.vmap(loop.evaluation, (0, 0, None))

        @jax.jit
        def choose(where: Any, one: Any, other: Any) -> Any:
            return jax.tree.map(
                lambda a, b: jax.vmap(jnp.where)(where, a, b), one, other
            )

        return Programs(jax.jit(train, donate_argnums=0), jax.jit(evaluate), choose)

    def _at_once(self) -> int:
        """A rough estimate of how many tickets fit into half of the free memory."""
        outputs = [
            shape[1:] for _, layer in walk(self.model) for shape in output_shapes(layer)
        ]
        count = EVALUATION_BATCH * sum(math.prod(shape) for shape in outputs)
        # Four copies: current, next, best so far, and gradients.
        variables = [*self.model.variables, *self.model.optimizer.variables]
        count += 4 * sum(math.prod(variable.shape) for variable in variables)
        return max(1, int(free_memory() / 2 / (4 * count)))


class _Stack:
    """Tickets of equal step and length, trained at once."""

    def __init__(
        self,
        engine: VectorizedEngine,
        tickets: Sequence[Ticket],
        seeds: Sequence[int],
        records: Sequence[TrainingRecord],
    ) -> None:
        self.engine = engine
        self.loop: Any = engine._loop
        self.span = tickets[0].step, tickets[0].steps
        self.masks = [ticket.masks for ticket in tickets]
        self.seeds = seeds
        self.records = records
        self.errors: dict[int, FloatingPointError] = {}
        self.seconds = 0.0
        self.state, self.fixed = self._started(tickets)
        # The states of the lowest loss, and the final states of stopped trainings.
        self.best = self._choose([True] * len(records), self.state[:2], self.state[:2])
        self.ended = self.best

    def train(self) -> list[Result]:
        """The training of each ticket, or its error."""
        engine = self.engine
        # These compile the programs and change nothing.
        self._train(self._orders(0), 0, 0)
        self._evaluate(self.state[:2], "validation")
        rewind_points: list[State] = [{} for _ in self.records]
        ordered = None
        began = time.perf_counter()
        for begin, end in engine._cuts(*self.span):
            if begin == engine.rewind_step:
                rewind_points = self._states(self.state[:2])
            for epoch, first, last in engine._stretches(begin, end):
                if not self._going():
                    break
                if epoch != ordered:
                    ordered, orders = epoch, self._orders(epoch)
                self._train(orders, first, last)
                self._reached(epoch * engine.data.steps_per_epoch + last)
        seconds = time.perf_counter() - began - self.seconds
        return self._results(seconds / len(self.records), rewind_points)

    def _started(self, tickets: Sequence[Ticket]) -> Any:
        """The stacked states and masks from which training starts."""
        import jax
        import jax.numpy as jnp

        starts = []
        for ticket in tickets:
            self.engine._start(ticket)
            starts.append((values(self.loop.variables), values(self.loop.fixed)))
        return jax.tree.map(lambda *parts: jnp.stack(parts), *starts)

    def _orders(self, epoch: int) -> np.ndarray:
        """Indices of shape [tickets, steps of an epoch, examples in a batch]."""
        order = self.engine.data.order
        by_seed = {seed: order(seed, epoch) for seed in set(self.seeds)}
        return np.stack([by_seed[seed] for seed in self.seeds])

    def _train(self, orders: np.ndarray, first: int, last: int) -> None:
        self.state = self.engine.programs.train(
            self.state, self.fixed, self.loop.batches, orders, first, last
        )

    def _evaluate(self, states: Any, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Losses and objectives of stacked states; NaN without data."""
        if part not in self.loop.parts:
            missing = np.full(len(self.records), np.nan)
            return missing, missing
        logs = self.engine.programs.evaluate(states, self.fixed, self.loop.parts[part])
        return np.asarray(logs["loss"]), np.asarray(logs[self.engine.objective.metric])

    def _choose(self, where: Sequence[bool], one: Any, other: Any) -> Any:
        return self.engine.programs.choose(np.array(where), one, other)

    def _going(self) -> dict[int, TrainingRecord]:
        """The records of the tickets that are still being trained."""
        return {
            index: record
            for index, record in enumerate(self.records)
            if index not in self.errors and not record.stopped
        }

    def _reached(self, step: int) -> None:
        """Records a step, and validates if a validation is due."""
        import jax

        going, (start, steps) = self._going(), self.span
        is_due = step % self.engine.eval_freq == 0 or step == start + steps
        for record in going.values():
            record.step = step
            record.tell()
        if not is_due:
            return
        jax.block_until_ready(self.state)
        began = time.perf_counter()
        losses, values = self._evaluate(self.state[:2], "validation")
        is_best = [False] * len(self.records)
        for index, record in going.items():
            try:
                is_best[index] = record.add(float(losses[index]), float(values[index]))
            except FloatingPointError as error:
                self.errors[index] = error
        self.best = self._choose(is_best, self.state[:2], self.best)
        self._ask(going)
        self.seconds += time.perf_counter() - began

    def _ask(self, going: dict[int, TrainingRecord]) -> None:
        """Ends the trainings whose `stop` returns True."""
        asking = [i for i in going if going[i].asks and i not in self.errors]
        if not asking:
            return
        states = self._states(self.state[:2])
        for index in asking:
            going[index].ask(states[index])
        ends = [
            index in going and record.stopped
            for index, record in enumerate(self.records)
        ]
        self.ended = self._choose(ends, self.state[:2], self.ended)

    def _results(self, seconds: float, rewind_points: list[State]) -> list[Result]:
        stopped = [record.stopped for record in self.records]
        final = self._choose(stopped, self.ended, self.state[:2])
        states = self._states(final)
        judged = zip(
            self._evaluate(final, "test")[1].tolist(),
            self._evaluate(final, "train")[1].tolist(),
            self._evaluate(self.best, "test")[1].tolist(),
            strict=True,
        )
        return [
            self.errors.get(index)
            or Training(
                states[index],
                rewind_points[index],
                record.curve,
                record.metrics(seconds, *numbers),
                record.passed,
            )
            for index, (record, numbers) in enumerate(
                zip(self.records, judged, strict=True)
            )
        ]

    def _states(self, stacked: Any) -> list[State]:
        """The state of each ticket by name, same as `get_state`."""
        trainable, others, _ = self.loop.variables
        positions = {id(v): (0, i) for i, v in enumerate(trainable)}
        positions |= {id(v): (1, i) for i, v in enumerate(others)}
        arrays = {}
        for name, variable in named_variables(self.engine.model).items():
            part, i = positions[id(variable)]
            arrays[name] = np.asarray(stacked[part][i])
        states: list[State] = []
        for index, masks in enumerate(self.masks):
            state = {name: array[index].copy() for name, array in arrays.items()}
            for name, mask in masks.items():
                state[name][~mask] = 0
            states.append(state)
        return states
