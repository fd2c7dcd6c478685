"""The tests that depend on the backend, on each Keras and each backend.

`.ci/matrix` runs it. It is not a part of `.ci/run`: it takes an hour. What has run is
not run again: delete `.ci/results` to begin anew. `.ci/matrix -s 'keras(next)'` takes
the newest pre-release; what follows `--` goes to pytest, such as `-- tests/tickets`.
The last session prints the table, and writes it into docs/backends.md.
"""

import os
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
PARTS = {
    "masked layers, copies, gradients": "keras_bridge",
    "criteria, rewinding, controls": "tickets",
    "`fit` and fused engines": "engines",
    "callbacks, supermasks": "in_fit",
    "filters, `compact`": "structured",
    "search, workers, resuming": "search",
    "analysis, reports, transfer": "study",
    "files, exports, deploy": "ship",
    "papers' models and experiments": "papers",
    "commands": "cli",
}

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
        folder = session.create_tmp()
        find = ("keras-lottery", "find", "--levels", "1", "--epochs", "1")
        session.run(*find, "--directory", f"{folder}/{backend}", env=env)
        draft = RESULTS / f"{version}-{backend}.part"
        session.run(
            *("pytest", "-q", "-m", "not slow and not once", f"--junit-xml={draft}"),
            *session.posargs,
            env=env,
            success_codes=[0, 1],
        )
        if not session.posargs:
            draft.rename(result_of(version, backend))


@nox.session(venv_backend="none")
def table(session: nox.Session) -> None:
    """Prints what passed, was skipped and failed, by part and backend."""
    found = {
        (version, backend): counts(result_of(version, backend))
        for version in VERSIONS
        for backend in BACKENDS
        if result_of(version, backend).exists()
    }
    if not found:
        session.error("nothing has run yet")
    columns = [f"{backend}, {version}" for version, backend in found]
    lines = [["", *columns], ["-"] * (len(columns) + 1)]
    for name, part in PARTS.items():
        cells = [found[column].get(part, (0, 0, 0)) for column in found]
        lines.append([name, *(" / ".join(map(str, cell)) for cell in cells)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(text)
    page = ROOT / "docs" / "backends.md"
    before, mark, _ = page.read_text().partition("<!-- made by .ci/matrix -->\n")
    page.write_text(f"{before}{mark}{text}\n")
    if any(failed for parts in found.values() for _, _, failed in parts.values()):
        session.error("some failed")


def result_of(version: str, backend: str) -> Path:
    """Where the tests' results are."""
    return RESULTS / f"{version}-{backend}.xml"


def counts(path: Path) -> dict[str, tuple[int, int, int]]:
    """How many passed, were skipped and failed, by part."""
    found: dict[str, list[int]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        part = [*case.get("classname", "").split("."), ""][1]
        kinds = {child.tag for child in case}
        kind = 1 if "skipped" in kinds else 2 if kinds & {"failure", "error"} else 0
        found.setdefault(part, [0, 0, 0])[kind] += 1
    return {part: (p, s, f) for part, (p, s, f) in found.items()}
