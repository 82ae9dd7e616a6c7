"""Replace the compiled modules of a Python package by empty ones. Usage: kernel_stubs.py PACKAGE_DIRECTORY"""

import pathlib
import sys

for library in sorted(pathlib.Path(sys.argv[1]).rglob("*.so")):
    library.with_name(library.name.partition(".")[0] + ".py").touch()
    library.unlink()
