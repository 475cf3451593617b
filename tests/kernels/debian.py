"""What comes from Debian's archive: QEMU and busybox, and the kernels.

By apt, with a configuration of its own: nothing is installed, and the machine's lists and sources stay
as they are. The archive is the one that the machine itself uses, with other suites. What was fetched is
kept, a folder for each kernel, and is not asked for again unless it is to be the newest.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS: Final = ("qemu-system-x86", "busybox-static")
# From 7.3 on an image is divided into packages.
_PARTS: Final = ("linux-image", "linux-binary", "linux-modules")
_IMAGE: Final = re.compile(r"linux-image-((\d+\.\d+)\.\d+(?:-\d+|\+deb\d+(?:\.\d+)*)-cloud-amd64)")
_NEWEST: Final = "newest"
_PATIENCE: Final = 600


class Unavailable(Exception):  # noqa: N818
    """Something cannot be had here; says what, in one line."""


@attrs.frozen
class Wanted:
    """A kernel by the name that the command line has for it, and the suites that may have it."""

    name: str
    suites: tuple[str, ...]

    def accepts(self, version: str) -> bool:
        return self.name in (version, _NEWEST)


KERNELS: Final = {
    wanted.name: wanted
    for wanted in (
        Wanted("5.10", ("bullseye", "bullseye-security")),
        Wanted("6.1", ("bookworm", "bookworm-security")),
        Wanted("6.12", ("trixie", "trixie-security")),
        Wanted("6.18", ("trixie-backports",)),
        Wanted(_NEWEST, ("trixie-backports",)),
    )
}


@attrs.frozen
class Kernel:
    """One that is here."""

    name: str
    release: str
    """What `uname -r` says in it."""
    folder: Path

    @property
    def image(self) -> Path:
        return self._existing(f"boot/vmlinuz-{self.release}", f"usr/lib/modules/{self.release}/vmlinuz")

    @property
    def modules(self) -> Path:
        return self._existing(f"lib/modules/{self.release}", f"usr/lib/modules/{self.release}")

    def _existing(self, *names: str) -> Path:
        return next(path for name in names if (path := self.folder / name).exists())


@attrs.frozen
class Archive:
    """Debian's, and what was fetched from it into a folder."""

    folder: Path
    environment: dict[str, str] = attrs.field(init=False, factory=lambda: dict(os.environ))

    def tool(self, name: str) -> Path:
        """A program that was fetched, or is installed. Raises Unavailable."""
        for place in ("usr/bin", "bin"):
            if (path := self.folder / "tools" / place / name).exists():
                return path
        if found := shutil.which(name):
            return Path(found)
        raise Unavailable(f"{name} is neither installed nor fetched")

    def has_tools(self) -> bool:
        try:
            return all(self.tool(name) for name in ("qemu-system-x86_64", "busybox"))
        except Unavailable:
            return False

    def kernel(self, name: str) -> Kernel | None:
        """The newest of those of this name that are here."""
        folders = (self.folder / "kernels" / name).glob("*-cloud-amd64")
        newest = max(folders, key=lambda folder: _order(folder.name), default=None)
        return None if newest is None else Kernel(name, newest.name, newest)

    def fetch(self, names: Sequence[str], *, again: bool) -> list[str]:
        """Fetches the tools and these kernels as far as they are not here, or ``again``. Returns a line for
        each kernel that cannot be had. Raises Unavailable if there are no tools."""
        missing = [KERNELS[name] for name in names if again or self.kernel(name) is None]
        if self.has_tools() and not missing:
            return []
        codename, main, security = self._sources()
        suites = {suite for wanted in missing for suite in wanted.suites}
        self._configure({codename, f"{codename}-security"} | suites, main, security)
        # A suite that is not there is a warning, and those that are there are read.
        self._run("apt-get", "-qq", "update", check=False)
        if not self.has_tools():
            try:
                self._fetch_tools()
            except Unavailable as error:
                raise Unavailable(f"QEMU cannot be had from {main}: {error}") from None
        return [line for wanted in missing if (line := self._fetch_kernel(wanted))]

    # How

    def _sources(self) -> tuple[str, str, str]:
        """The codename of the machine's Debian, and the addresses of its archive and of that for security."""
        if platform.machine() != "x86_64":
            raise Unavailable(f"the kernels are Debian's for amd64, and this is {platform.machine()}")
        system = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
        if system.get("ID") != "debian" or not KEYRING.exists() or not shutil.which("apt-get"):
            raise Unavailable("QEMU and the kernels come from Debian's archive, and this is no Debian")
        codename = system["VERSION_CODENAME"]
        listed = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        sources = dict(line.split(" ", 1) for line in listed.splitlines())
        main = sources.get(codename, "http://deb.debian.org/debian/")
        return codename, main, sources.get(f"{codename}-security", "http://deb.debian.org/debian-security/")

    def _configure(self, suites: Iterable[str], main: str, security: str) -> None:
        apt = self.folder / "apt"
        for name in ("state/lists/partial", "cache/archives/partial", "none"):
            (apt / name).mkdir(parents=True, exist_ok=True)
        lines = [
            f"deb [signed-by={KEYRING}] {security if suite.endswith('-security') else main} {suite} main"
            for suite in sorted(suites)
        ]
        (apt / "sources.list").write_text("\n".join(lines) + "\n")
        (apt / "configuration").write_text(
            f"""
            Dir::State "{apt}/state"; Dir::State::status "/var/lib/dpkg/status"; Dir::Cache "{apt}/cache";
            Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "{apt}/none";
            Dir::Etc::preferencesparts "{apt}/none"; APT::Architecture "amd64"; APT::Sandbox::User "root";
            Acquire::Languages "none"; Acquire::Check-Valid-Until "false"; Acquire::Retries "2";
            """
        )
        self.environment["APT_CONFIG"] = str(apt / "configuration")

    def _run(self, *command: str, folder: Path | None = None, check: bool = True) -> str:
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{' '.join(command[:3])} took longer than {_PATIENCE} s") from None
        if check and done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
            raise Unavailable(f"{' '.join(command[:3])} failed: {said[-1]}")
        return done.stdout

    def _fetch_tools(self) -> None:
        said = self._run("apt-get", "-s", "install", "--no-install-recommends", *TOOLS)
        packages = re.findall(r"^Inst (\S+) (?:\[[^]]*\] )?\((\S+)", said, re.MULTILINE)
        self._unpack([f"{name}={version}" for name, version in packages], self.folder / "tools")

    def _fetch_kernel(self, wanted: Wanted) -> str:
        """Returns why it cannot be had; nothing if it is here."""
        names = self._run("apt-cache", "pkgnames", "linux-image-").split()
        images = [
            found[1] for name in names if (found := _IMAGE.fullmatch(name)) and wanted.accepts(found[2])
        ]
        release = max(images, key=_order, default="")
        try:
            if not release:
                raise Unavailable(f"{' and '.join(wanted.suites)} of the archive have it not, or have moved")
            target = self.folder / "kernels" / wanted.name / release
            if not target.exists():
                parts = [f"{part}-{release}" for part in _PARTS if f"{part}-{release}" in self._names(part)]
                self._unpack(parts, target)
        except Unavailable as error:
            return f"{wanted.name}: {error}"
        return ""

    def _names(self, part: str) -> list[str]:
        return self._run("apt-cache", "pkgnames", f"{part}-").split()

    def _unpack(self, packages: Sequence[str], target: Path) -> None:
        """Downloads packages, and unpacks them into a folder, which is there when they all are."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
            folder = Path(scratch)
            self._run("apt-get", "-qq", "download", *packages, folder=folder)
            for package in sorted(folder.glob("*.deb")):
                self._run("dpkg-deb", "-x", str(package), str(folder / "unpacked"))
            shutil.rmtree(target, ignore_errors=True)
            (folder / "unpacked").rename(target)


def _order(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release.removesuffix("-cloud-amd64")))
