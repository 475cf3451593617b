"""Names the extensions; everything else stands in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

setup(
    cffi_modules=["native/build.py:ffibuilder"],
    ext_modules=[
        Extension(
            "trio_uring._tasks",
            [
                f"native/python/{name}.c"
                for name in ("attributes", "capsule", "checking", "memory", "module", "streams", "waking")
            ],
            include_dirs=["native"],
            depends=[*glob("native/*.h"), *glob("native/python/*.h")],
            extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"],
        )
    ],
)
