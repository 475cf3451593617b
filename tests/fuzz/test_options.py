"""Options from anywhere: whatever they are, they make a `RingOptions`, or one error that says which of them
is wrong."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any
from unittest import mock

from fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st

from trio_uring import RingOptions
from trio_uring.ring.options import given as given_options
from trio_uring.session.option_names import OPTIONS, VARIABLES
from trio_uring.session.settings import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-1, 70_000),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(),
        st.sampled_from(["error", "epoll", "tls", "completions", 64, 1 << 15, 1 << 20]),
    ),
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(st.one_of(st.sampled_from(["tls", "completions"]), st.text()), inner),
    ),
)
# What a variable of the environment may have: any bytes but 0.
texts = st.one_of(
    st.integers().map(str),
    st.sampled_from(["epoll", "tls completions", "tls,no_iowait", "1", "0", " 64 ", "+64", "9" * 5000]),
    st.binary().map(lambda data: os.fsdecode(data.replace(b"\0", b""))),
)


def made_by(make: Callable[[], RingOptions]) -> RingOptions | str:
    """The options, or why they were refused."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        return str(error)


@fuzzed
@given(options=st.dictionaries(st.sampled_from((*OPTIONS, "features", "stranger")), anything))
def test_options_are_made_or_refused(options: dict[str, Any]) -> None:
    made = made_by(lambda: RingOptions(**options))
    if isinstance(made, str):
        assert "RingOptions" in made
        return
    assert given_options(made) == options
    assert pickle.loads(pickle.dumps(made)) == made
    assert hash(made) == hash(RingOptions(**options))


@fuzzed
@given(variables=st.dictionaries(st.sampled_from(sorted(VARIABLES)), texts, min_size=1))
def test_variables_are_read_or_refused_by_their_names(variables: dict[str, str]) -> None:
    with mock.patch.dict(os.environ, variables):
        made = made_by(lambda: resolve(None))
    assert isinstance(made, RingOptions) or any(name in made for name in variables)


@fuzzed
@given(told=st.one_of(texts, st.lists(texts).map(lambda words: " ".join(["1", *words]))))
def test_what_a_parent_process_says_is_read_or_refused(told: str) -> None:
    with mock.patch.dict(os.environ, {"TRIO_URING": told}):
        assert made_by(lambda: resolve(None))
