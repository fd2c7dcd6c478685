"""Runs an experiment, and compares its measurements with the published figures."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lottery.files import (
    CorruptedFileError,
    read_json,
    write_atomically,
    write_json,
)
from keras_lottery.papers.experiments.experiment import Experiment, Values
from keras_lottery.papers.experiments.lab import Lab
from keras_lottery.search.settings import versions

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = "reproduction.json"
"""The file that marks a run's directory, and holds the measured values."""
README = "README.md"
ROWS = 80
"""Longer tables are only in their .csv files, not in the Markdown."""


def reproduce(
    experiment: Experiment,
    scale: str = "cpu",
    directory: str | os.PathLike[str] | None = None,
    verbose: int = 1,
) -> "pd.DataFrame":
    """Runs an experiment, or the rest of it, and judges its claims.

    Args:
        experiment: the experiment.
        scale: `"smoke"`, `"cpu"` or `"paper"`.
        directory: where everything is kept: trainings, tables (.csv), figures (.png,
            .svg), `reproduction.json` and `README.md`. By default
            `runs/reproduce/<name>_<scale>`.
        verbose: 0 is silent; 1 shows progress.

    Returns:
        A row for each claim: `claim`, `published`, `measured`, `counts` (the values
        that count as reproduced), `verdict` and `source`. At scale smoke, every verdict
        is `"not run"`.

    Raises:
        ValueError: if there is no such scale, or the directory holds another run.
        FileNotFoundError: if the data are not on this machine.
        KeyError: if the experiment does not return the value of one of its claims.
    """
    import pandas as pd

    check_scale(experiment, scale)
    chosen = experiment.scales[scale]
    directory = Path(directory or directory_of(experiment.name, scale))
    lab = Lab(chosen, directory, verbose)
    _occupy(directory, experiment.name, scale)
    measured = dict(experiment.run(lab))
    if missing := {claim.value for claim in experiment.claims} - measured.keys():
        raise KeyError(
            f"Experiment '{experiment.name}' has claims on {sorted(missing)}, which "
            f"its `run` does not return. It returned: {sorted(measured)}"
        )
    judged = measured if chosen.is_faithful else {}
    verdicts = pd.DataFrame(
        {
            "claim": claim.what,
            "published": claim.published,
            "measured": claim.format(measured),
            "counts": claim.counts,
            "verdict": claim.verdict(judged),
            "source": claim.source,
        }
        for claim in experiment.claims
    )
    text = _markdown(experiment, scale, lab, verdicts)
    write_atomically(directory / README, lambda file: file.write(text.encode()))
    # Last: it says that the run has finished.
    write_json(
        directory / SUMMARY,
        {
            "experiment": experiment.name,
            "scale": scale,
            "title": experiment.title,
            "paper": experiment.paper,
            "networks": lab.networks,
            "seconds": lab.seconds,
            "versions": versions(),
            "measured": {name: _numbers(value) for name, value in measured.items()},
            "verdicts": verdicts.to_dict("records"),
            "tables": list(lab.tables),
            "figures": lab.figures,
        },
    )
    return verdicts


def check_scale(experiment: Experiment, scale: str) -> None:
    """Raises ValueError if an experiment does not have a scale."""
    if scale not in experiment.scales:
        raise ValueError(
            f"Expected `scale` of '{experiment.name}' to be one of "
            f"{list(experiment.scales)}. Received: scale={scale!r}"
        )


def directory_of(name: str, scale: str) -> Path:
    """The default directory of a run."""
    return Path("runs/reproduce") / f"{name}_{scale}"


def measured_seconds(directory: Path) -> float | None:
    """The total training time of a run in seconds, or None if it has not finished.

    Args:
        directory: that of the run.

    Raises:
        CorruptedFileError: if its summary is damaged.
    """
    seconds = (_summary(directory) or {}).get("seconds")
    if isinstance(seconds, int | float | None):
        return seconds
    path = directory / SUMMARY
    raise CorruptedFileError(f"'{path}' is damaged: its seconds are {seconds!r}")


def _summary(directory: Path) -> dict[str, Any] | None:
    """What a run noted, or None if there is no run; errors as in `measured_seconds`."""
    path = directory / SUMMARY
    try:
        summary = read_json(path)
    except FileNotFoundError:
        return None
    if isinstance(summary, dict):
        return summary
    raise CorruptedFileError(f"'{path}' is damaged: it holds no JSON object")


def _occupy(directory: Path, name: str, scale: str) -> None:
    """Marks a directory as that of a run, or checks that it is marked so."""
    own = {"experiment": name, "scale": scale}
    found = _summary(directory)
    if found is None:
        if (directory / README).exists():
            raise ValueError(
                f"The directory '{directory}' holds a {README} of something else. "
                "Choose another directory."
            )
        found = own
        write_json(directory / SUMMARY, own)
    if {key: found.get(key) for key in own} != own:
        raise ValueError(
            f"The directory '{directory}' holds {found.get('experiment')} at scale "
            f"{found.get('scale')}. Choose another directory."
        )


def _numbers(value: Values) -> Any:
    """NaN is not JSON."""
    numbers = [None if np.isnan(v) else float(v) for v in np.atleast_1d(value)]
    return numbers if np.ndim(value) else numbers[0]


def _markdown(
    experiment: Experiment, scale: str, lab: Lab, verdicts: "pd.DataFrame"
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_lottery.papers.experiments", "."),
        # Markdown is not HTML. `_cell` escapes what would split a table's cell.
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("readme.md.jinja").render(
        experiment=experiment,
        scale=scale,
        lab=lab,
        verdicts=verdicts.rename(columns={"counts": "reproduced if"}),
        most_rows=ROWS,
    )


def _cell(value: Any) -> str:
    """A cell of a table in Markdown."""
    return (
        f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")
    )
