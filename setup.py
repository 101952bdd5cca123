"""The part of the build that needs code: which compiled modules this machine can build.

Everything else is in pyproject.toml. The build runs with the project's folder as its working directory but not
on the module path, hence the insertion. ``R2P2_MODULES=prebuilt`` leaves the modules out: tools/setup.sh has built them
in place already.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cffi_build

prebuilt = os.environ.get("R2P2_MODULES") == "prebuilt"
setup(
    cffi_modules=[] if prebuilt else cffi_build.modules(),
    ext_modules=[] if prebuilt else [cffi_build.python_extension(package) for package in cffi_build.PYTHON_MODULES],
)
