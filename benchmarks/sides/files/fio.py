"""The limit: fio with its io_uring engine does what a C program can, without Python.

It reads and writes through the page cache as the others do (direct=0), one process with
as many operations under way as the others have tasks, submitted and completed in
batches. With one at a time a ring has nothing to batch, and a plain system call can be
faster. What its work costs is what it says about its own process. Its engine is believed
only if a ring was open in that process right after the work.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from measure.percentiles import SHARES, enough
from measure.processes import PATIENCE, ChildError
from report.model import Measurement
from sides.files.work import Work
from sides.runtimes import WrongBackendError

ENGINE = "io_uring"
_NAME = "limit"
_LOOKED_AT = f"{_NAME}.postrun.txt"
"""Where fio puts the output of the command that it runs after the work."""
MODES = {"random": "randread", "sequential-read": "read", "sequential-write": "write"}


def missing() -> str:
    """Why there is no fio; empty if there is."""
    return "" if shutil.which("fio") else "fio is not installed"


def run(work: Work, engine: str = ENGINE) -> tuple[Measurement, str]:
    command = [
        "fio",
        f"--name={_NAME}",
        f"--ioengine={engine}",
        f"--rw={MODES[work.kind]}",
        f"--filename={work.path}",
        f"--bs={work.size}",
        f"--size={work.count * work.size}",
        f"--iodepth={work.tasks}",
        f"--iodepth_batch_submit={work.tasks}",
        "--iodepth_batch_complete_min=1",
        f"--iodepth_batch_complete_max={work.tasks}",
        f"--runtime={work.seconds * 1000:.0f}ms",
        f"--time_based={int(work.kind == 'random')}",
        "--direct=0",
        # By itself it drops the file from the cache, writes the space of the file before
        # the clock starts, and changes its buffer before each write.
        "--invalidate=0",
        # Copies to other offsets in a page are several times slower on some CPUs.
        "--iomem_align=4096",
        "--fallocate=none",
        "--create_on_open=1",
        "--scramble_buffers=0",
        "--norandommap",
        "--lat_percentiles=1",
        "--clat_percentiles=0",
        "--output-format=json",
        # In a shell of its own, whose parent is the process that did the work, with all still open.
        "--exec_postrun={ ls -l /proc/$PPID/fd; cat /proc/$PPID/status; }",
    ]
    folder = Path(work.path).parent
    (job,) = json.loads(_finished(command, folder))["jobs"]
    process = (folder / _LOOKED_AT).read_text()
    used = job["job options"]["ioengine"]
    ring = "anon_inode:[io_uring]" in process
    text = f"fio says {used!r}; it has {'a ring' if ring else 'no ring'} open"
    if used != ENGINE or not ring:
        raise WrongBackendError(f"this was to be fio on {ENGINE}, but {text}")
    return _measurement(job, work, process), text


def _finished(command: list[str], folder: Path) -> str:
    """Runs fio; its output."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=PATIENCE, check=False)
    if done.returncode != 0:
        words = (done.stderr + done.stdout)[-2000:]
        raise ChildError(f"{' '.join(command)}\nended with status {done.returncode}: {words}")
    return done.stdout[done.stdout.index("{") :]


def _measurement(job: dict[str, Any], work: Work, process: str) -> Measurement:
    side = job["write" if work.kind == "sequential-write" else "read"]
    operations = side["total_ios"]
    seconds = side["runtime"] / 1000
    if not operations or not seconds:
        raise ChildError(f"fio did nothing: {operations} operations in {seconds} s")
    cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
    measurement = {"rate": operations / seconds, "peak_rss": _peak(process)}
    if work.kind != "random":
        measurement["bytes_per_second"] = side["io_bytes"] / seconds
    if cpu:
        measurement["per_cpu_second"] = operations / cpu
    if work.kind == "random":
        found = {float(name): nanoseconds for name, nanoseconds in side["lat_ns"]["percentile"].items()}
        for name, share in SHARES.items():
            if enough(operations, share):
                measurement[name] = found[share * 100] / 1e9
    return measurement


def _peak(status: str) -> float:
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kilobytes) * 1024.0
