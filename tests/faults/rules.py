"""What the kernel may do to a run, and what the program may see of it."""

from __future__ import annotations

import errno

import attrs


@attrs.frozen(kw_only=True)
class Rule:
    """One of injector.c's, or several of them at once."""

    name: str
    rate: int
    """Of 1,000 submissions, or enters, that it may change."""
    visible: frozenset[int] = frozenset()
    """Errors that the program may see, as OSError where they belong. Any other is a fault of ours."""
    ends_run: bool = False
    """The run may end with its error: the kernel has lost something."""
    single: bool = False
    """Every other run has one fault only, which has to be seen: nobody may swallow it."""
    needs_completions: bool = False
    """Without them too little of what it changes is submitted."""
    parts: tuple[str, ...] = ()
    """The rules that it consists of. Default: itself."""

    @property
    def names(self) -> tuple[str, ...]:
        return self.parts or (self.name,)


SINGLE_RULES = (
    Rule(name="ENOBUFS", rate=100, needs_completions=True),
    Rule(name="ECANCELED", rate=50),
    Rule(name="ECANCELED of files", rate=50),
    Rule(name="EINTR", rate=100),
    Rule(name="EAGAIN", rate=100, needs_completions=True),
    Rule(name="short counts", rate=300),
    Rule(name="multishots end", rate=300, needs_completions=True),
    Rule(name="polls wake", rate=100),
    Rule(name="cancels ENOENT", rate=300, needs_completions=True),
    Rule(name="cancels EALREADY", rate=300, needs_completions=True),
    Rule(name="EIO", rate=20, visible=frozenset({errno.EIO}), single=True),
    Rule(name="ENOSPC", rate=50, visible=frozenset({errno.ENOSPC}), single=True),
    Rule(name="EMFILE", rate=100, visible=frozenset({errno.EMFILE})),
    Rule(name="completions lost", rate=2, ends_run=True),
    Rule(name="enter EAGAIN", rate=10),
    Rule(name="enter EBUSY", rate=10),
    Rule(name="enter ENOMEM", rate=10),
    Rule(name="enter EINTR", rate=200),
    Rule(name="enter EBADR", rate=100, ends_run=True),
    Rule(name="enter short", rate=200),
)
_TRANSIENT = tuple(rule.name for rule in SINGLE_RULES if not rule.visible and not rule.ends_run)

RULES = {
    rule.name: rule
    for rule in (
        *SINGLE_RULES,
        Rule(name="all that pass", rate=10, parts=_TRANSIENT),
    )
}
