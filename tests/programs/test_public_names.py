"""Each public name is one object, in whatever order things are imported."""

from __future__ import annotations

import pkgutil
from importlib.metadata import version

import pytest
from child_process import output_of

import trio_uring

MODULES = sorted(
    module.name.removeprefix("trio_uring.")
    for module in pkgutil.walk_packages(trio_uring.__path__, "trio_uring.")
    if module.name != "trio_uring.__main__"
)


PUBLIC = [*trio_uring.__all__, *(f"lowlevel.{name}" for name in trio_uring.lowlevel.__all__)]


def test_no_module_is_called_as_something_else_is() -> None:
    """It would take the place of that in its package when it is imported."""
    assert set(MODULES) & set(PUBLIC) == {"lowlevel"}


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
    imports = "".join(f"import trio_uring.{name}\n" for name in MODULES if name != "pytest_plugin")
    kinds = f"import operator, trio_uring\nfor name in {PUBLIC}: "
    kinds += "print(name, type(operator.attrgetter(name)(trio_uring)).__name__)"
    told = output_of(imports + kinds)
    assert told == output_of(kinds)
    assert {"send_file function", "lowlevel.statx function"} < set(told.splitlines())


def test_version_is_that_of_the_installed_package_and_costs_no_import() -> None:
    told = output_of(
        """
        import sys
        before = {*sys.modules, "trio_uring"}
        import trio_uring
        print(trio_uring.__version__, sorted({*sys.modules} - before))
        """
    )
    assert told == f"{version('trio-uring')} []\n"
