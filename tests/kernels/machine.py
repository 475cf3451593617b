"""A guest: QEMU, which emulates the processor as well, so that no privilege is needed. Ten to thirty times
slower than the machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Final

import attrs
from findings import Result
from image import make_disk, make_initial

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from debian import Archive, Kernel

# Beyond the time that the job in it was given: to start, to stop, and to be emulated beside others.
_PATIENCE: Final = 240
# A kernel that finds the timer late, as on a busy machine, panics unless it is told not to look.
# It tells where a task is that hangs in it, but not to a console that is quiet.
_APPEND: Final = (
    "console=ttyS0 loglevel=7 panic=-1 mitigations=off nokaslr random.trust_cpu=on tsc=reliable "
    "no_timer_check"
)


@attrs.frozen
class Machine:
    """A kernel and a root file system, in a folder for what a guest leaves."""

    archive: Archive
    kernel: Kernel
    root: Path
    folder: Path

    def run(self, job: Sequence[str], seconds: float) -> list[Result]:
        """Boots, runs a command, and returns the results that it has written. What it printed is in
        ``output`` in the folder, and the kernel's messages in ``console``. If the guest does not end in
        time, or without its command's end, that is a result as well."""
        started = time.monotonic()
        shutil.rmtree(self.folder, ignore_errors=True)
        scratch = self.folder / "scratch"
        scratch.mkdir(parents=True)
        (scratch / "job").write_text(f'{shlex.join(job)}\necho "job: $?"\n')
        make_disk(scratch, self.folder / "scratch.ext4", "2G")
        make_initial(self.kernel, self.archive.tool("busybox"), self.folder / "initial")
        for name in ("console", "output", "results"):
            (self.folder / name).touch()
        ended = self._emulate(seconds + _PATIENCE)
        (self.folder / "scratch.ext4").unlink()
        took = time.monotonic() - started
        results = [Result.from_line(line) for line in self._text("results").splitlines()]
        if self._text("output").rstrip().endswith("job: 0"):
            results.append(Result("guest", "passed", f"{took:.0f} s"))
        else:
            how = "ended without its programs' end" if ended else f"had not ended after {took:.0f} s"
            told = self._text("output")[-3000:] + self._text("console")[-3000:]
            results.append(Result("guest", "failed", how, told))
        return results

    def _emulate(self, seconds: float) -> bool:
        """Whether the guest has ended by itself."""
        tools = self.archive.folder / "tools"
        qemu = self.archive.tool("qemu-system-x86_64")
        environment = dict(os.environ)
        places: list[str] = []
        if qemu.is_relative_to(tools):
            libraries = (tools / name / "x86_64-linux-gnu" for name in ("usr/lib", "lib"))
            environment["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
            places = ["-L", str(tools / "usr/share/qemu"), "-L", str(tools / "usr/share/seabios")]
        disks = []
        for name, path, options in (
            ("root", self.root, "readonly=on"),
            ("scratch", self.folder / "scratch.ext4", "cache=unsafe"),
        ):
            disks += ["-drive", f"file={path},if=none,id={name},format=raw,{options}"]
            disks += ["-device", f"virtio-blk-pci,drive={name}"]
        ports = [f"-serial=file:{self.folder / name}" for name in ("console", "output", "results")]
        command = [
            str(qemu),
            *places,
            # Without cmpxchg16b, at which a kernel has panicked here.
            *("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,-cx16"),
            *("-machine", "q35,usb=off,vmport=off", "-smp", "2", "-m", "3072"),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-kernel", str(self.kernel.image), "-initrd", str(self.folder / "initial"), "-append", _APPEND),
            *(part for port in ports for part in port.split("=", 1)),
            *disks,
            *("-object", "rng-random,filename=/dev/urandom,id=random"),
            *("-device", "virtio-rng-pci,rng=random"),
        ]
        with (self.folder / "qemu").open("w") as messages:
            guest = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                env=environment,
                start_new_session=True,
            )
            try:
                guest.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
            finally:
                guest.kill()
                guest.wait()
        return True

    def _text(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace").replace("\r", "")
