"""The reference has every public name, and help() tells of every option and every number."""

from __future__ import annotations

import inspect
import pydoc
import re

import attrs
import pytest
from picture import ROOT

import trio_uring
from trio_uring import RingOptions, UringStatistics, lowlevel
from trio_uring.session.option_names import FLAGS, OPTIONS, VARIABLES

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
DOCUMENTED = re.findall(r"^\.\. auto(?:function|class|exception):: ([\w.]+)", REFERENCE, re.MULTILINE)
BESIDE = {
    "trio_uring.command.capabilities.Capability",
    "trio_uring.files.async_file.AsyncFile",
    "trio_uring.files.binary.BinaryFile",
}
"""What public functions return, and what is not public by itself."""


def paragraphs(cls: type) -> dict[str, str]:
    """What a class's docstring says of each attribute."""
    text = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].partition("\nRaises:")[0]
    found = re.split(r"^  (\w+): ", text, flags=re.MULTILINE)[1:]
    return {name: re.sub(r"\s+", " ", said) for name, said in zip(found[::2], found[1::2], strict=True)}


def test_every_public_name_is_in_the_reference_once() -> None:
    public = [f"trio_uring.{name}" for name in trio_uring.__all__ if name != "lowlevel"]
    public += [f"trio_uring.lowlevel.{name}" for name in lowlevel.__all__]
    assert sorted(DOCUMENTED) == sorted([*public, *BESIDE])


@pytest.mark.parametrize("name", [*trio_uring.__all__, *(f"lowlevel.{name}" for name in lowlevel.__all__)])
def test_help_says_something_of_every_public_name(name: str) -> None:
    assert len(pydoc.render_doc(f"trio_uring.{name}").splitlines()) > 3
    found = trio_uring
    for part in name.split("."):
        found = getattr(found, part)
    assert found.__doc__


@pytest.mark.parametrize("field", attrs.fields(RingOptions), ids=lambda field: field.name)
def test_help_tells_unit_default_and_cost_of_an_option(field: attrs.Attribute[object]) -> None:
    said = paragraphs(RingOptions)[field.name]
    default = re.search(r"\*Unit\*: .+ \*Default\*: (.+?) \*Cost\*: .+", said)
    assert default is not None, said
    value = getattr(RingOptions(), field.name)
    assert default[1].startswith({"fallback": '``"error"``', "features": "none"}.get(field.name, str(value)))


def test_help_tells_the_unit_of_every_number() -> None:
    said = paragraphs(UringStatistics)
    assert list(said) == [field.name for field in attrs.fields(UringStatistics)]
    assert [name for name, text in said.items() if "*Unit*: " not in text] == []


def test_signature_of_the_options_is_theirs() -> None:
    written = re.search(r"trio_uring\.RingOptions\(\*, (.*)\)$", REFERENCE, re.MULTILINE)
    assert written is not None
    options = eval(f"dict({written[1]})")
    assert options == attrs.asdict(RingOptions(), recurse=False)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    listed = re.findall(r"^[\w-]+$", "".join(re.findall(r"```\{toctree\}(.*?)```", index, re.DOTALL)), re.M)
    assert sorted(listed) == sorted(page.stem for page in ROOT.glob("docs/*.md") if page.stem != "index")


def test_every_option_is_in_the_table_of_options() -> None:
    options = (ROOT / "docs" / "options.md").read_text()
    missing = [name for name in (*VARIABLES, *FLAGS) if not re.search(rf"`{name}\b", options)]
    assert missing == []
    assert [name for name in OPTIONS if f"\n| `{name}` | " not in options] == []
