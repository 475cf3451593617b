"""What a guest starts from: a root file system, an initial one that mounts it, and a scratch disk.

The root file system has the interpreter that runs this, its environment, into which the package was
installed, and the tests: each where it is on this machine, so that paths within stay right. All other
programs are busybox's. Nothing needs root: file systems are written by mke2fs, without a mount.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

from debian import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debian import Kernel

ROOT: Final = Path(__file__).resolve().parents[2]
SOURCES: Final = Path("/src")
"""Where a guest has the tests."""
# Without the package, which is to be the installed one.
_FROM_CHECKOUT: Final = (
    "tests",
    "native",
    "start",
    "benchmarks",
    "docs",
    "release",
    "pyproject.toml",
    "noxfile.py",
)
_MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_rng", "overlay", "ext4", "crc32c_generic")
_OPTIONAL: Final = ("dummy", "fuse", "tls", "loop")
_NOT_OF_PYTHON: Final = ("__pycache__", "test", "idlelib", "ensurepip", "lib2to3", "tkinter", "site-packages")
_LINKS: Final = {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_FOLDERS: Final = ("proc", "sys", "dev", "tmp", "scratch", "var/tmp", "root", "etc", "run")
_ETC: Final = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost guest\n::1 localhost\n",
    "nsswitch.conf": "hosts: files\n",
}


def tool(name: str) -> str:
    """A program of the machine's. Raises Unavailable."""
    if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
        return found
    raise Unavailable(f"{name} is not installed")


def make_disk(folder: Path, image: Path, size: str) -> None:
    """An ext4 file system with the contents of a folder. Without what old kernels do not know."""
    features = "^metadata_csum,^orphan_file,^metadata_csum_seed"
    image.unlink(missing_ok=True)
    for known in (features, "^metadata_csum"):  # an older mke2fs does not know the others
        command = [tool("mke2fs"), "-q", "-t", "ext4", "-O", known, "-m", "0", "-d", str(folder), str(image)]
        done = subprocess.run([*command, size], capture_output=True, text=True, check=False)
        if not done.returncode:
            return
    raise Unavailable(f"mke2fs failed: {done.stderr.strip()}")


# The root file system


def make_root(folder: Path, busybox: Path, image: Path) -> None:
    """Makes the tree in a folder, and the disk of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("usr/bin", "usr/lib", "usr/lib64", *_FOLDERS):
        (folder / name).mkdir(parents=True)
    for name, place in _LINKS.items():
        (folder / name).symlink_to(place)
    (folder / "usr/sbin").symlink_to("bin")
    for name, text in _ETC.items():
        (folder / "etc" / name).write_text(text)
    for name in ("services", "protocols", "ssl/openssl.cnf"):
        if Path("/etc", name).exists():
            _copy(folder, Path("/etc", name))
    shutil.copy2(busybox, folder / "usr/bin/busybox")
    for applet in subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split():
        if not (link := folder / "usr/bin" / applet).exists():
            link.symlink_to("busybox")
    _copy_python(folder)
    _copy_libraries(folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", ".*", "_build")
    for name in _FROM_CHECKOUT:
        source, target = ROOT / name, folder / SOURCES.relative_to("/") / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(source, target)
    make_disk(folder, image, "1G")


def _copy_python(folder: Path) -> None:
    interpreter = Path(sys.executable)
    while interpreter.is_symlink():  # the environment's, which leads to the installed one by several steps
        interpreter = interpreter.parent / os.readlink(interpreter)
    _copy(folder, Path(os.path.normpath(interpreter)))
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
    for library in {Path(paths["stdlib"]), Path(paths["platstdlib"])}:
        target = folder / library.relative_to("/")
        if not target.exists():
            ignored = shutil.ignore_patterns(*_NOT_OF_PYTHON, "config-*", "*.a")
            shutil.copytree(library, target, symlinks=True, ignore=ignored)
    shutil.copytree(
        sys.prefix,
        folder / Path(sys.prefix).relative_to("/"),
        symlinks=True,
        ignore=shutil.ignore_patterns("__pycache__", "include", "pip", "tmp"),
    )


def _copy_libraries(folder: Path) -> None:
    """All that anything in the tree names, where the loader looks for it."""
    files = [str(path) for path in _elf_files(folder)]
    needed = set()
    for start in range(0, len(files), 50):
        said = subprocess.run(
            ["ldd", *files[start : start + 50]], capture_output=True, text=True, check=False
        )
        needed.update(re.findall(r"(?:=> )(/\S+)|^\s(/\S+ld-linux\S+)", said.stdout, re.MULTILINE))
    paths = {Path(path) for pair in needed for path in pair if path}
    # What is loaded by name: the end of a thread, and names of hosts.
    beside = {path.with_name(name) for path in paths for name in ("libgcc_s.so.1", "libnss_files.so.2")}
    for path in paths | {path for path in beside if path.exists()}:
        if not (folder / path.relative_to("/")).exists():
            _copy(folder, path)


def _elf_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and (path.name.endswith(".so") or ".so." in path.name):
            yield path
    yield Path(sys.executable).resolve()


def _copy(folder: Path, path: Path) -> None:
    target = folder / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


# The initial file system


def make_initial(kernel: Kernel, busybox: Path, image: Path) -> None:
    """busybox, the modules that the disks need, and init.sh, as an archive that the kernel unpacks."""
    archive = Cpio()
    for name in ("bin", "modules", "proc", "sys", "dev", "image", "layer", "new"):
        archive.add(name, b"", 0o040755)
    archive.add("bin/busybox", busybox.read_bytes(), 0o100755)
    archive.add("init", Path(__file__).with_name("init.sh").read_bytes(), 0o100755)
    modules = Modules(kernel.modules)
    order = modules.in_order()
    for name in order:
        archive.add(f"modules/{name}.ko", modules.contents(name), 0o100644)
    archive.add("modules/order", "".join(f"{name}.ko\n" for name in order).encode(), 0o100644)
    image.write_bytes(gzip.compress(archive.finished(), 1))


class Modules:
    """Those of a kernel, by their names."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            path.name.partition(".ko")[0].replace("-", "_"): path for path in folder.rglob("*.ko*")
        }
        self._read: dict[str, bytes] = {}

    def contents(self, name: str) -> bytes:
        if name not in self._read:
            path = self._files[name]
            if path.suffix not in (".ko", ".xz"):
                raise Unavailable(f"{path.name} is compressed in a way that is not known here")
            self._read[name] = (
                lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
            )
        return self._read[name]

    def in_order(self) -> list[str]:
        """Those that a guest loads, each behind those that it needs; what is built in is none."""
        order: list[str] = []

        def add(name: str) -> None:
            if name in order or name not in self._files:
                return
            found = re.search(rb"(?:^|\0)depends=([^\0]*)\0", self.contents(name))
            for needed in (found[1].decode() if found else "").split(","):
                add(needed.replace("-", "_"))
            order.append(name)

        for name in (*_MODULES, *_OPTIONAL):
            add(name)
        return order


class Cpio:
    """A cpio archive as the kernel reads it (newc)."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(self, name: str, contents: bytes, mode: int) -> None:
        self._count += 1
        fields = (self._count, mode, 0, 0, 1, 0, len(contents), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        self._parts += [_padded(header), _padded(contents)]

    def finished(self) -> bytes:
        self.add("TRAILER!!!", b"", 0)
        return b"".join(self._parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
