"""Kills a search by `kill -9` repeatedly, and checks that its results do not change.

    python benchmarks/kill_and_resume.py [--kills 20] [--seed 0]

An uninterrupted search and one that is killed at random moments, some of them while a
file is being written, must give the same results.csv, except for the seconds.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

SEARCH = [
    *(sys.executable, str(Path(__file__).parents[1] / "scripts" / "find_ticket.py")),
    *("--levels", "3", "--replicates", "2", "--steps", "150"),
    *("--export", "none", "--verbose", "0", "--directory"),
]


def run(directory: Path) -> subprocess.Popen:
    # stdout and stderr are not read: a pipe that fills up would stop the search.
    return subprocess.Popen(
        [*SEARCH, str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def table(directory: Path) -> pd.DataFrame:
    return pd.read_csv(directory / "results.csv").drop(columns="seconds")


def wait_for_write(process: subprocess.Popen, directory: Path) -> bool:
    """Waits until a file is being written; False if the search ends before."""
    while process.poll() is None:
        if any(directory.rglob(".writing-*")):
            return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp())
    whole, broken = folder / "whole", folder / "broken"
    began = time.perf_counter()
    if run(whole).wait():
        raise RuntimeError("the unbroken search failed")
    seconds = time.perf_counter() - began
    killed = writing = 0
    while killed < options.kills:
        process = run(broken)
        at_write = killed % 2 == 1
        if at_write:
            # Start-up takes most of a short search, so kill it at the next write.
            time.sleep(rng.uniform(0, 0.3) * seconds)
            wait_for_write(process, broken)
        else:
            time.sleep(rng.uniform(0.1, 0.6) * seconds)
        if process.poll() is not None:
            # The search ended, so the next kill needs a training that is left to do.
            kept = sorted(broken.rglob("ticket_0.safetensors"))
            for path in kept[len(kept) // 2 :]:
                path.unlink()
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
        torn = bool(list(broken.rglob(".writing-*")))
        writing += torn
        finished = len(list(broken.rglob("*.safetensors")))
        print(
            f"kill {killed}: {finished} files{', one half-written' * torn}", flush=True
        )
    if run(broken).wait():
        raise RuntimeError("the resumed search failed")
    pd.testing.assert_frame_equal(table(whole), table(broken), check_exact=True)
    print(
        f"equal after {killed} kills, {writing} of them in the middle of a write; "
        f"unbroken: {seconds:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
