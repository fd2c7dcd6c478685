"""The contents of a search's files: declared here, and checked whenever they are read.

A directory may come from an untrusted source. Values that are not declared here are
only compared or shown.
"""

import json
import os
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from keras_lottery.files import REMEDY, CorruptedFileError, read_sealed

DEEPEST = 60
"""So far what is stored may be nested."""
MOST = 10**6
"""So many trainings a search may have."""

_OPEN = ConfigDict(strict=True, extra="allow")
_CLOSED = ConfigDict(strict=True, extra="forbid")

Count = Annotated[int, Field(ge=0, le=10**15)]
Few = Annotated[int, Field(ge=1, le=MOST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(pattern=r"^\w+$")]
Described = str | dict[str, Any] | list[Any]
"""What `settings.describe` makes of a function or an object."""
Own = Annotated[tuple[Described, Few], Strict(False)]
"""A control of the user's own, and its trials."""

Elsewhere = dict[str, Annotated[list[str], Field(min_length=3, max_length=3)]]
"""Of states in other records: file, the file's kind, name there."""


def _serialised(text: str) -> str:
    try:
        model = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    config = model.get("config") if isinstance(model, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("name", ""), str):
        raise ValueError("it is no model of Keras's")
    return text


def _of_one_length(curve: dict[str, list[float]]) -> dict[str, list[float]]:
    if curve and len({len(values) for values in curve.values()}) > 1:
        raise ValueError("it has not as many values of each")
    steps = curve.get("step", [np.nan])
    if curve and not all(float(step).is_integer() for step in steps):
        raise ValueError("its steps are not whole")
    return curve


def _possible(settings: "Settings") -> "Settings":
    levels = len(settings["schedule"]["sparsities"])
    if max(settings["report_levels"], default=0) > levels:
        raise ValueError(f"report_levels lie beyond the schedule's {levels} levels")
    trials = [n if isinstance(n, int) else n[1] for n in settings["controls"].values()]
    if settings["replicates"] * (levels + 1) * (1 + sum(trials)) > MOST:
        raise ValueError(f"these are more than {MOST} trainings")
    return settings


Schedule = TypedDict(
    "Schedule",
    {
        "class": Literal["Schedule"],
        "sparsities": Annotated[list[Share | dict[str, Share]], Field(min_length=1)],
        "by_rate": bool,
    },
)
Objective = TypedDict(
    "Objective",
    {
        "class": Literal["Objective"],
        "name": Annotated[str, Field(pattern="^val_.")],
        "direction": Literal["max", "min"] | None,
    },
)
Layer = TypedDict("Layer", {"class": str})
with_config(_CLOSED)(Schedule)
with_config(_CLOSED)(Objective)
with_config(_OPEN)(Layer)


@with_config(_OPEN)
class Model(TypedDict):
    """A model, see `settings.describe_model`."""

    layers: dict[str, Layer]


@with_config(_OPEN)
class Begun(TypedDict):
    """The settings of any stored trainings."""

    engine: str
    in_workers: bool
    versions: dict[str, str]


@with_config(_OPEN)
class Growing(Begun):
    """Settings of trainings to which more may be added later."""

    replicates: Few
    controls: dict[Word, Few | Own]
    report_levels: list[Few]
    initial: str
    objective: Objective


@with_config(_OPEN)
class Settings(Growing):
    """The settings of a search."""

    schedule: Schedule
    criterion: Described
    allocation: Described | None
    granularity: Described
    rewind: Described
    rewind_to: Count | str
    repair: Described | None
    prune_at_init: bool
    compact: bool | Literal["auto"]
    pretrained: bool | list[str]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    margin: Annotated[Finite, Field(ge=0)] | Literal["auto"]
    validation: Described
    model: Model
    architecture: Annotated[str, AfterValidator(_serialised)]


@with_config(_OPEN)
class Card(TypedDict):
    """What `keras-lottery find` notes beside a search."""

    data: str
    command: NotRequired[str]


@with_config(_OPEN)
class Export(TypedDict):
    """An `ExportReport`."""

    path: str
    format: str
    bytes: Count
    gzip_bytes: Count
    dense_bytes: Annotated[Count, Field(gt=0)]
    max_difference: float
    accuracy: float | None
    keras_accuracy: float | None
    sha256: NotRequired[dict[str, str]]
    notes: list[str]


@with_config(_OPEN)
class Exports(TypedDict):
    """The measurements that `keras-lottery find` made on the files it exported."""

    level: Count
    density: Share
    exports: list[Export]


@with_config(_OPEN)
class Initial(TypedDict):
    """The metadata of the weights that a replicate starts from."""

    replicate: Count
    elsewhere: Elsewhere


@with_config(_OPEN)
class Training(TypedDict):
    """The metadata of a training."""

    replicate: Count
    level: Count
    variant: str
    trial: Count
    step: Count
    steps: Count
    learning_rate: Finite | None
    sparsity: Share
    metrics: dict[str, float]
    curve: Annotated[dict[str, list[float]], AfterValidator(_of_one_length)]
    elsewhere: Elsewhere
    versions: dict[str, str]


RECORDS: dict[str, type] = {"initial": Initial, "training": Training}
"""What is noted in a record, by its kind."""

_SCHEMAS: dict[Any, TypeAdapter] = {
    kind: TypeAdapter(kind)
    for kind in (Begun, Growing, Card, Exports, Initial, Training)
} | {Settings: TypeAdapter(Annotated[Settings, AfterValidator(_possible)])}


def check(path: str | os.PathLike, value: Any, kind: type) -> None:
    """Raises CorruptedFileError unless the contents of a file are of the expected kind.

    Args:
        path: the file.
        value: its contents, as JSON.
        kind: the expected kind, one of the classes above.
    """
    if _is_deep(value):
        raise CorruptedFileError(
            f"'{path}' is damaged or was not written by keras_lottery: it is nested "
            f"more than {DEEPEST} times. {REMEDY}"
        )
    try:
        _SCHEMAS[kind].validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "all of it"
        raise CorruptedFileError(
            f"'{path}' is damaged or was not written by keras_lottery: in {field}: "
            f"{first['msg']}. Received: {first['input']!r:.80}. {REMEDY}"
        ) from error


def read_checked(path: str | os.PathLike, kind: type) -> dict[str, Any]:
    """Reads a JSON file of a search, and checks that it is complete and of its kind.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptedFileError: if it was changed, or is of another kind.
    """
    value = read_sealed(path)
    check(path, value, kind)
    return value


def _is_deep(value: Any, depth: int = 0) -> bool:
    inside = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return False
    return depth > DEEPEST or any(_is_deep(inner, depth + 1) for inner in inside)
