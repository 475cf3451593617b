"""What pyproject.toml has no words for: the extensions, and the page on PyPI."""

import re
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).resolve().parent
SOURCE = re.search(r'^Source = "(.*)"$', (HERE / "pyproject.toml").read_text(), re.MULTILINE)[1]
# On PyPI's page a link to another file of the checkout leads nowhere, and a picture is not seen.
README = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{SOURCE}/raw/HEAD/", (HERE / "README.md").read_text())
README = re.sub(r"\]\((?!https?:|#)", f"]({SOURCE}/blob/HEAD/", README)

setup(
    long_description=README,
    long_description_content_type="text/markdown",
    cffi_modules=["native/build.py:ffibuilder"],
    ext_modules=[
        Extension(
            "trio_uring._tasks",
            [
                f"native/python/{name}.c"
                for name in (
                    "attempts",
                    "attributes",
                    "batch",
                    "budget",
                    "capsule",
                    "checking",
                    "datagrams",
                    "memory",
                    "module",
                    "streams",
                    "waits",
                    "waking",
                )
            ],
            include_dirs=["native"],
            depends=[*glob("native/*.h"), *glob("native/python/*.h")],
            extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"],
        )
    ],
)
