"""Names the extensions; everything else stands in pyproject.toml."""

from setuptools import Extension, setup

setup(
    cffi_modules=["native/build.py:ffibuilder"],
    ext_modules=[
        Extension(
            "trio_uring._waking",
            ["native/waking.c"],
            depends=["native/operations.h", "native/buffers.h", "native/ring.h"],
            extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"],
        )
    ],
)
