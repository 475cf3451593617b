"""Options from the environment, the call and the command line: who has the last word, and what is said of
wrong ones."""

from __future__ import annotations

import collections
import copy
import os
import pickle
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from child_process import run_python

import trio_uring
from trio_uring import RingOptions
from trio_uring.session import option_names, settings, wanted
from trio_uring.session.option_names import NO_OPTIONS, VARIABLES
from trio_uring.session.runs import resolve_options

# One that no option has by default, as text and as what it means.
OTHER: dict[str, tuple[str, Any]] = {
    "entries": ("16", 16),
    "cq_entries": ("512", 512),
    "fallback": ("epoll", "epoll"),
    "checkpoint_budget": ("3", 3),
    "buffers": ("4", 4),
    "buffer_size": ("2048", 2048),
    "read_ahead": ("1000", 1000),
    "accept_ahead": ("7", 7),
    "files": ("1", True),
    "accelerate": ("1", True),
}


@pytest.fixture(autouse=True)
def _nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIO_URING", raising=False)
    for variable in option_names.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for flag in list(wanted.command_line):
        monkeypatch.delitem(wanted.command_line, flag)


def variable(name: str) -> str:
    return f"TRIO_URING_{name.upper()}"


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def test_every_option_has_a_variable_and_a_flag() -> None:
    names = {field.name for field in attrs.fields(RingOptions)} - {"features"} | {"disable"}
    assert {*option_names.OPTIONS, option_names.DISABLE} == names
    assert option_names.VARIABLES.keys() == {variable(name) for name in names}
    assert option_names.FLAGS.keys() == {flag(name) for name in names}


@pytest.mark.parametrize("name", OTHER)
def test_environment_goes_over_the_call_over_the_command_line(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text, value = OTHER[name]
    usual = getattr(RingOptions(), name)
    assert getattr(resolve_options(None), name) == usual
    monkeypatch.setitem(wanted.command_line, flag(name), text)
    assert getattr(resolve_options(None), name) == value
    assert getattr(resolve_options(RingOptions()), name) == value, "the call says nothing of it"
    by_call = RingOptions(**{name: usual})
    assert getattr(resolve_options(by_call), name) == usual, "the call says what is the default anyway"
    monkeypatch.setenv(variable(name), text)
    assert getattr(resolve_options(by_call), name) == value
    monkeypatch.setenv(variable(name), "")
    assert getattr(resolve_options(by_call), name) == usual, "an empty variable says nothing"


def test_options_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wanted.command_line, "--buffers", "4")
    monkeypatch.setitem(wanted.command_line, "--entries", "8")
    monkeypatch.setenv("TRIO_URING_CHECKPOINT_BUDGET", "5")
    found = resolve_options(RingOptions(entries=16, read_ahead=99, checkpoint_budget=1))
    assert found == RingOptions(entries=16, read_ahead=99, checkpoint_budget=5, buffers=4)


@pytest.mark.parametrize("kind", [dict, collections.UserDict])
def test_an_environment_that_somebody_has_replaced_counts(monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    """What `os.environ` has behind it is only looked at where it is Python's own."""
    monkeypatch.setattr(os, "environ", kind(os.environ, TRIO_URING_ENTRIES="16"))
    assert resolve_options(None).entries == 16
    monkeypatch.setattr(os, "environ", kind(os.environ, TRIO_URING="7"))
    with pytest.raises(ValueError, match="TRIO_URING has to be 1"):
        resolve_options(None)


def test_what_was_installed_is_the_call_of_a_run_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wanted.command_line, "--checkpoint-budget", "16")
    with trio_uring.installed(RingOptions(checkpoint_budget=2)):
        assert resolve_options(None).checkpoint_budget == 2
    with trio_uring.installed():
        assert resolve_options(None).checkpoint_budget == 16


def test_features_that_anybody_switches_off_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wanted.command_line, "--disable", "no_iowait")
    monkeypatch.setenv("TRIO_URING_DISABLE", "submit_all, cqsize")
    off = resolve_options(RingOptions(features={"no_sqarray": False})).features
    assert set(off) == {"no_iowait", "submit_all", "cqsize", "no_sqarray"}


def test_more_entries_get_more_completions_unless_these_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_URING_ENTRIES", "1024")
    assert resolve_options(None).cq_entries == 1024
    assert resolve_options(RingOptions(entries=8)).cq_entries == 1024
    with pytest.raises(ValueError, match=r"^RingOptions: cq_entries has to be at least entries \(1024\)"):
        resolve_options(RingOptions(cq_entries=256))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("entries", "many", "has to be an int from 1 to 32768 (submissions), not 'many'"),
        ("entries", "0", "has to be an int from 1 to 32768 (submissions), not 0"),
        ("cq_entries", "8", "has to be at least entries (64), not 8"),
        ("fallback", "EPOLL", "has to be 'error' or 'epoll', not 'EPOLL'"),
        ("checkpoint_budget", "-1", "has to be an int of at least 0 (calls), not -1"),
        ("checkpoint_budget", "1.5", "has to be an int of at least 0 (calls), not '1.5'"),
        ("read_ahead", "9" * 5000, f"has to be an int of at least 1 (bytes), not '{'9' * 5000}'"),
        ("buffers", "3", "has to be a power of two, not 3"),
        ("files", "yes", "has to be 1 or 0, not 'yes'"),
    ],
)
def test_wrong_text_is_an_error_of_ring_options_by_the_name_that_was_used(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        settings.check_command_line({flag(name): text})
    assert str(raised.value) == f"{flag(name)} {said}"
    monkeypatch.setenv(variable(name), text)
    for start in (lambda: trio_uring.run(trio.sleep, 0), trio_uring.install, trio_uring.capabilities):
        with pytest.raises(ValueError) as raised:  # noqa: PT011
            start()
        assert str(raised.value) == f"{variable(name)} {said}"


UNKNOWN = {"TRIO_URING_FILE": "1", "TRIO_URING_BUFERS": "4"}
RUNS = "import trio, trio_uring\nfor _ in range(3): trio_uring.run(trio.sleep, 0)\nprint('done')"


def test_variables_that_only_look_like_ours_are_told_of_once_and_no_more() -> None:
    done = run_python(RUNS, env=UNKNOWN)
    assert (done.returncode, done.stdout) == (0, "done\n")
    told = [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]
    for name in UNKNOWN:
        (line,) = (line for line in told if f": {name} in" in line)
        assert line.startswith("<string>:2: ")
        assert line.endswith(
            f"{name} in the environment is no option of trio-uring; these are: {', '.join(VARIABLES)}"
        )
    assert len(told) == len(UNKNOWN)


@pytest.mark.parametrize("program", [RUNS, "import trio\ntrio.run(trio.sleep, 0)"], ids=["run", "inherited"])
def test_who_makes_errors_of_warnings_has_no_run_with_a_variable_that_is_not_ours(program: str) -> None:
    done = run_python(program, flags=["-W", "error"], env={"TRIO_URING": "1", "TRIO_URING_FILE": "1"})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "RuntimeWarning: TRIO_URING_FILE in the environment is no option"
    )


def test_the_log_has_a_variable_that_is_not_ours_too() -> None:
    configure = "import logging, sys; logging.basicConfig(stream=sys.stdout)\n"
    done = run_python(configure + RUNS, flags=["-W", "ignore"], env={"TRIO_URING_FILE": "1"})
    assert done.stdout.startswith("WARNING:trio_uring:TRIO_URING_FILE in the environment is no option")
    assert (done.stdout.count("\n"), done.stderr) == (2, "")


def test_variables_of_the_build_and_of_the_tests_are_known() -> None:
    """All those that anything in the checkout has, but for what the tests misspell."""
    root = Path(__file__).resolve().parents[2]
    folders = ("benchmarks", "demo", "deploy", "docs", "examples", "native", "release", "tests", "trio_uring")
    files = [root / "noxfile.py", *(file for name in folders for file in (root / name).rglob("*.[pcm]*"))]
    found = {
        name
        for file in files
        if file.suffix in (".py", ".c", ".md")
        for name in re.findall(r"TRIO_URING_[A-Z_]*[A-Z]", file.read_text())
    }
    assert found - {*UNKNOWN} == {*VARIABLES, *NO_OPTIONS}


def test_error_of_the_call_is_the_calls_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_URING_BUFFERS", "4")
    with pytest.raises(ValueError, match=r"^RingOptions: entries "):
        trio_uring.run(trio.sleep, 0, ring=RingOptions(entries=0))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda options: pickle.loads(pickle.dumps(options))]
)
def test_copy_has_been_given_the_same(monkeypatch: pytest.MonkeyPatch, again: Any) -> None:
    monkeypatch.setitem(wanted.command_line, "--fallback", "epoll")
    monkeypatch.setitem(wanted.command_line, "--checkpoint-budget", "3")
    options = again(RingOptions(fallback="error", features={"no_iowait": False}))
    assert options == RingOptions(features={"no_iowait": False})
    found = resolve_options(options)
    assert (found.fallback, found.checkpoint_budget, list(found.features)) == ("error", 3, ["no_iowait"])
