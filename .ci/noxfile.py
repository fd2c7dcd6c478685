"""The tests that depend on the backend, on each Keras and each backend.

`.ci/matrix` runs it. It is not a part of `.ci/run`: it takes an hour. What has passed
is not run again, what failed is: delete `.ci/results` to begin anew. `.ci/matrix -s
'keras(next)'` takes the newest pre-release. The last session prints the table, and
writes it into docs/guides/backends.md.
"""

import json
import os
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import nox

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / ".ci" / "results"
BACKENDS = ("tensorflow", "jax", "torch")
# Keras publishes its pre-releases as keras-nightly.
VERSIONS = {
    "oldest": ("keras==3.12.*", "tensorflow==2.20.*", "tf-keras==2.20.*"),
    "newest": ("keras<3.16", "tensorflow<2.22"),
    "next": ("keras-nightly",),
}
# Without it, pip takes the torch for GPUs.
TORCH = os.environ.get(
    "TORCH", "torch --extra-index-url https://download.pytorch.org/whl/cpu"
)
FEATURES = tomllib.loads((ROOT / ".ci" / "features.toml").read_text())
PASSED, FAILED = "passed", "failed"
FILES = ("ticket.keras", "ticket.tflite", "saved_model/saved_model.pb")

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["keras(oldest)", "keras(newest)", "table"]


@nox.session(reuse_venv=True)
@nox.parametrize("version", [nox.param(name, id=name) for name in VERSIONS])
def keras(session: nox.Session, version: str) -> None:
    """Tests and the find command on one Keras, on every backend."""
    keras, *tensorflow = VERSIONS[version]
    stored = {backend: read(version, backend) for backend in BACKENDS}
    todo = {
        backend: files_that_failed(found)
        for backend, found in stored.items()
        if not found or FAILED in found.values()
    }
    if not todo:
        session.skip("has passed")
    folder = Path(session.create_tmp()).resolve()
    session.chdir(ROOT)
    session.install("--quiet", ".[test]", *TORCH.split())
    if version == "next":  # Both packages hold the module `keras`.
        session.run("pip", "uninstall", "--quiet", "--yes", "keras")
        session.install("--quiet", "--pre", keras)
    else:
        session.install("--quiet", keras, *tensorflow)
    RESULTS.mkdir(exist_ok=True)
    for backend, failed in todo.items():
        env = {"KERAS_BACKEND": backend, "CI": "true", "PYTHONPATH": ""}
        run, files = folder / backend / "run", folder / backend / "files"
        shutil.rmtree(folder / backend, ignore_errors=True)
        session.run(
            *("keras-lottery", "find", "--levels", "1", "--epochs", "1"),
            *("--directory", f"{run}", "--saved-models", f"{files}"),
            env=env,
        )
        for name in FILES:
            assert (files / "digits_lenet_300_100" / name).is_file(), name
        report = folder / f"{backend}.xml"
        session.run(
            *("pytest", *(failed or ["tests"]), "-q", "-m", "not once"),
            # Whole networks, pruned before training: as many minutes as all the rest.
            *("--deselect", "tests/papers/models/test_at_initialisation.py"),
            *("-o", "junit_family=xunit1", f"--junit-xml={report}"),
            env=env,
            success_codes=[0, 1],
        )
        kept = {t: o for t, o in stored[backend].items() if file_of(t) not in failed}
        found = kept | dict(outcomes(report))
        result_of(version, backend).write_text(json.dumps(found, indent=0))


@nox.session(venv_backend="none")
def table(session: nox.Session) -> None:
    """Prints how many tests of each feature passed, and why the others did not run."""
    found = {
        (version, backend): by_feature(read(version, backend))
        for backend in BACKENDS
        for version in VERSIONS
        if read(version, backend)
    }
    if not found:
        session.error("nothing has run yet")
    columns = [f"{backend}, {version}" for version, backend in found]
    lines = [["", *columns, "left out"], ["-"] * (len(columns) + 2)]
    lines.append(["`keras-lottery find`, its files", *["yes"] * len(columns), ""])
    for feature in FEATURES:
        tests = [column[feature] for column in found.values()]
        lines.append([feature, *map(cell, tests), reasons(tests)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(text)
    page = ROOT / "docs" / "guides" / "backends.md"
    before, mark, _ = page.read_text().partition("<!-- made by .ci/matrix -->\n")
    page.write_text(f"{before}{mark}{text}\n")
    if any(tests[FAILED] for column in found.values() for tests in column.values()):
        session.error("some failed")


def result_of(version: str, backend: str) -> Path:
    """Where the tests' outcomes are."""
    return RESULTS / f"{version}-{backend}.json"


def files_that_failed(found: dict[str, str]) -> list[str]:
    """The files of tests that failed: as a whole, since a test may have a new name."""
    return sorted(
        {file_of(test) for test, outcome in found.items() if outcome == FAILED}
    )


def file_of(test: str) -> str:
    """The file that a test is in."""
    return test.partition("::")[0]


def read(version: str, backend: str) -> dict[str, str]:
    """The outcome of each test so far: passed, failed or why it was skipped."""
    path = result_of(version, backend)
    return json.loads(path.read_text()) if path.exists() else {}


def outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """Tests and their outcomes, of a report by pytest."""
    for case in ElementTree.parse(report).iter("testcase"):
        # A module that is skipped as a whole is named alone.
        path = case.get("file") or case.get("name", "").replace(".", "/") + ".py"
        inside = case.get("classname", "").removeprefix(path[:-3].replace("/", "."))
        name = "::".join([path, *inside.split(".")[1:], case.get("name", "")])
        skipped = case.find("skipped")
        if skipped is not None:
            # Without what Keras's backend is, which the column says.
            yield name, skipped.get("message", "").partition("; the backend")[0]
        else:
            wrong = {child.tag for child in case} & {"failure", "error"}
            yield name, FAILED if wrong else PASSED


def by_feature(found: dict[str, str]) -> dict[str, Counter[str]]:
    """How many tests of each feature had each outcome: see features.toml."""
    patterns = {p: name for name, several in FEATURES.items() for p in several}
    counts: dict[str, Counter[str]] = {name: Counter() for name in FEATURES}
    for test, outcome in found.items():
        of = max((p for p in patterns if fnmatch(file_of(test), p)), key=len)
        counts[patterns[of]][outcome] += 1
    return counts


def cell(tests: Counter[str]) -> str:
    """What a table says of a feature on one backend."""
    if not tests:
        return "as on any"
    if tests[FAILED]:
        return f"**{tests[FAILED]} failed**"
    if not tests[PASSED]:
        return "no"
    total = tests.total()
    return f"{total}" if tests[PASSED] == total else f"{tests[PASSED]} of {total}"


def reasons(columns: list[Counter[str]]) -> str:
    """Why tests were skipped, on whichever backend."""
    found = {reason: None for tests in columns for reason in tests if tests[reason]}
    return "; ".join(reason for reason in found if reason not in {PASSED, FAILED})
