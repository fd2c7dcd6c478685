"""The aarch64 build of LiteRT under QEMU: `emulate(files)` runs files on an ARM CPU.

QEMU translates each instruction, so that CPU time under it follows the number and kind
of instructions. It does not model the caches, memory bandwidth or clock of a phone:
only ratios of one file to another are meaningful, and phones gain less where they wait
for memory rather than arithmetic.

`prepare` needs root on Debian with Python's pip: it installs `qemu-user`, and unpacks
Python for arm64 and the wheels of ai-edge-litert below `FOLDER`. `emulate` needs root,
too, to show LiteRT the /proc/cpuinfo of an ARM CPU, which QEMU does not provide.
"""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(os.environ.get("ARM_LITERT", Path.home() / ".cache" / "arm_litert"))
LITERT = "ai-edge-litert==2.3.0"

DEBS = (
    "python3.11-minimal libpython3.11-minimal python3.11 libpython3.11-stdlib libc6 "
    "libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 "
    "libuuid1 libcrypt1 libgomp1"
)

PREPARE = """
set -euo pipefail
mkdir -p debs sys wheels site
apt-get install -y -q qemu-user unzip
dpkg --add-architecture arm64
apt-get update -q
(cd debs; for p in $DEBS; do apt-get download -q "$p:arm64"; done
 for d in *.deb; do dpkg -x "$d" ../sys; done)
dpkg --remove-architecture arm64 || true
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 \
  --implementation cp --platform manylinux_2_28_aarch64 \
  --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 -d wheels \
  $LITERT 'numpy<2.4' flatbuffers tqdm backports.strenum protobuf typing_extensions
for w in wheels/*.whl; do unzip -q -o "$w" -d site; done
"""

# The features of the CPU, as a Cortex-A76 of an Android phone lists them.
CPU = """processor\t: {}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid atomics fphp asimdhp \
asimdrdm asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd0b
CPU revision\t: 3

"""

RUN = """
import json, sys, time
import numpy as np
from ai_edge_litert.interpreter import Interpreter
rounds, folder, *names = sys.argv[1:]
nets, times = [], []
for number, name in enumerate(names):
    net = Interpreter(name, num_threads=1)
    net.allocate_tensors()
    for each in net.get_input_details():
        x = np.random.default_rng(0).random(each["shape"])
        net.set_tensor(each["index"], x.astype(each["dtype"]))
    net.invoke()
    index = net.get_output_details()[0]["index"]
    np.save(f"{folder}/{number}.npy", net.get_tensor(index))
    nets.append(net)
    times.append([])
for _ in range(int(rounds)):
    for net, own in zip(nets, times):
        start = time.process_time()
        net.invoke()
        own.append(time.process_time() - start)
print(json.dumps(times))
"""


@dataclass(frozen=True)
class Emulated:
    """The measurements of a file on the emulated CPU.

    Attributes:
        ratio: the median CPU time of a call, as a share of the first file's.
        lowest: the same for the shortest calls.
        output: the output for random numbers from 0 to 1, with seed 0.
    """

    ratio: float
    lowest: float
    output: np.ndarray


def why_not() -> str | None:
    """Why nothing can be emulated here, in one line, or None."""
    if shutil.which("qemu-aarch64") is None:
        return "qemu-aarch64 is not installed: --setup does that, on Debian as root"
    if not (FOLDER / "site" / "ai_edge_litert").is_dir():
        return f"{FOLDER} has no aarch64 build of LiteRT: --setup fetches it, as root"
    if os.geteuid():
        return "emulating /proc/cpuinfo needs root"
    return None


def prepare() -> None:
    """Installs QEMU and fetches the aarch64 build of LiteRT."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = os.environ | {"DEBS": DEBS, "LITERT": LITERT}
    subprocess.run(["bash", "-c", PREPARE], cwd=FOLDER, env=names, check=True)


def emulate(files: Sequence[Path], rounds: int = 9) -> list[Emulated]:
    """Runs .tflite files in turns, with one thread, and compares all to the first."""
    (FOLDER / "cpu").write_text("".join(CPU.format(i) for i in range(2)), "utf-8")
    (FOLDER / "emulated.py").write_text(RUN, "utf-8")
    system = FOLDER / "sys"
    environment = os.environ | {
        "QEMU_LD_PREFIX": str(system),
        "PYTHONHOME": str(system / "usr"),
        "PYTHONPATH": str(FOLDER / "site"),
    }
    python = [str(system / "usr/bin/python3.11"), str(FOLDER / "emulated.py")]
    shell = 'mount --bind "$0" /proc/cpuinfo && exec qemu-aarch64 -cpu cortex-a76 "$@"'
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [
                *("unshare", "-m", "sh", "-c", shell, str(FOLDER / "cpu")),
                *python,
                *(str(rounds), folder, *(str(file.resolve()) for file in files)),
            ],
            env=environment,
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise RuntimeError(f"emulation failed: {run.stderr.strip()[-500:]}")
        times = json.loads(run.stdout.splitlines()[-1])
        outputs = [np.load(f"{folder}/{i}.npy") for i in range(len(files))]
    first = times[0]
    return [
        Emulated(
            statistics.median(own) / statistics.median(first),
            min(own) / min(first),
            output,
        )
        for own, output in zip(times, outputs, strict=True)
    ]


def here(file: Path) -> np.ndarray:
    """The output of a file for the same random numbers on this machine."""
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(str(file), num_threads=1)
    net.allocate_tensors()
    for each in net.get_input_details():
        x = np.random.default_rng(0).random(each["shape"])
        net.set_tensor(each["index"], x.astype(each["dtype"]))
    net.invoke()
    return net.get_tensor(net.get_output_details()[0]["index"])
