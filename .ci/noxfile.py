"""The tests that depend on the backend, on each Keras and each backend.

`.ci/matrix` runs it. It is not a part of `.ci/run`: it takes an hour. What has run is
not run again: delete `.ci/results` to begin anew. `.ci/matrix -s 'keras(next)'` takes
the newest pre-release; what follows `--` goes to pytest, such as `-- tests/tickets`.
The last session prints the table, and writes it into docs/guides/backends.md.
"""

import os
import shutil
import tomllib
from collections import Counter
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
    "next": ("keras-nightly", "tensorflow"),
}
# Without it, pip takes the torch for GPUs.
TORCH = os.environ.get(
    "TORCH", "torch --extra-index-url https://download.pytorch.org/whl/cpu"
)
FEATURES = tomllib.loads((ROOT / ".ci" / "features.toml").read_text())
FILES = ("ticket.keras", "ticket.tflite", "saved_model/saved_model.pb")

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["keras(oldest)", "keras(newest)", "table"]


@nox.session(reuse_venv=True)
@nox.parametrize("version", [nox.param(name, id=name) for name in VERSIONS])
def keras(session: nox.Session, version: str) -> None:
    """Tests and the find command on one Keras, on every backend."""
    keras, *tensorflow = VERSIONS[version]
    todo = [b for b in BACKENDS if not result_of(version, b).exists()]
    if not todo:
        session.skip("has run")
    folder = Path(session.create_tmp()).resolve()
    session.chdir(ROOT)
    session.install("--quiet", ".[test]", *TORCH.split())
    if version == "next":  # Both packages hold the module `keras`.
        session.run("pip", "uninstall", "--quiet", "--yes", "keras")
        session.install("--quiet", "--pre", keras)
    else:
        session.install("--quiet", keras, *tensorflow)
    RESULTS.mkdir(exist_ok=True)
    for backend in todo:
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
        draft = RESULTS / f"{version}-{backend}.part"
        session.run(
            *("pytest", "tests", "-q", "-m", "not once"),
            # Whole networks, pruned before training: as many minutes as all the rest.
            *("--deselect", "tests/papers/models/test_at_initialisation.py"),
            *("-o", "junit_family=xunit1", f"--junit-xml={draft}"),
            *session.posargs,
            env=env,
            success_codes=[0, 1],
        )
        if not session.posargs:
            draft.rename(result_of(version, backend))


@nox.session(venv_backend="none")
def table(session: nox.Session) -> None:
    """Prints how many tests of each feature passed, and why the others did not run."""
    found = {
        (version, backend): outcomes(result_of(version, backend))
        for backend in BACKENDS
        for version in VERSIONS
        if result_of(version, backend).exists()
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
    if any(tests["failed"] for column in found.values() for tests in column.values()):
        session.error("some failed")


def result_of(version: str, backend: str) -> Path:
    """Where the tests' results are."""
    return RESULTS / f"{version}-{backend}.xml"


def feature_of(path: str) -> str:
    """The feature that a file of tests is about: see features.toml."""
    patterns = {p: name for name, several in FEATURES.items() for p in several}
    return patterns[max((p for p in patterns if fnmatch(path, p)), key=len)]


def outcomes(path: Path) -> dict[str, Counter[str]]:
    """How many tests passed, failed, and were skipped for each reason, by feature."""
    found: dict[str, Counter[str]] = {name: Counter() for name in FEATURES}
    for case in ElementTree.parse(path).iter("testcase"):
        skipped = case.find("skipped")
        wrong = case.find("failure") is not None or case.find("error") is not None
        outcome = "failed" if wrong else "passed"
        if skipped is not None:
            # Without what Keras's backend is, which the column says.
            outcome = skipped.get("message", "").partition("; the backend")[0]
        found[feature_of(case.get("file", ""))][outcome] += 1
    return found


def cell(tests: Counter[str]) -> str:
    """What a table says of a feature on one backend."""
    if not tests:
        return "as on any"
    if tests["failed"]:
        return f"**{tests['failed']} failed**"
    if not tests["passed"]:
        return "no"
    total = tests.total()
    return f"{total}" if tests["passed"] == total else f"{tests['passed']} of {total}"


def reasons(columns: list[Counter[str]]) -> str:
    """Why tests were skipped, on whichever backend."""
    found = {reason: None for tests in columns for reason in tests if tests[reason]}
    return "; ".join(reason for reason in found if reason not in {"passed", "failed"})
