"""Each public name is one object, in whatever order things are imported."""

from __future__ import annotations

import pkgutil
import sys

import pytest
from child_process import output_of

import trio_uring

MODULES = sorted(
    module.name for module in pkgutil.iter_modules(trio_uring.__path__) if module.name != "__main__"
)


def test_no_module_is_called_as_something_else_is() -> None:
    assert set(MODULES) & set(trio_uring.__all__) == {"lowlevel"}


@pytest.mark.parametrize("name", sorted({*trio_uring.__all__} - {"lowlevel"}))
def test_a_name_is_the_same_after_its_module_was_imported(name: str) -> None:
    home = getattr(trio_uring, name).__module__
    assert (
        output_of(
            f"""
        from {home} import {name}
        import trio_uring
        print(trio_uring.{name} is {name}, callable({name}))
        """
        )
        == "True True\n"
    )


def test_names_are_the_same_when_all_modules_were_imported() -> None:
    program = "".join(f"import trio_uring.{name}\n" for name in MODULES if name != "pytest_plugin")
    program += "for name in trio_uring.__all__: print(name, type(getattr(trio_uring, name)).__name__)"
    before = "import trio_uring\n" + program.splitlines()[-1]
    assert output_of(program) == output_of(before)
    assert "send_file function" in output_of(program).splitlines()
    assert "trio_uring.send_file" not in sys.modules
