"""The runtime's C sources, and flags that let a compiler complain about them."""

from __future__ import annotations

import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CSRC = REPOSITORY / "runtime/csrc"
_LIBRARY = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
SOURCES = [REPOSITORY / source for source in _LIBRARY["sources"]]
STRICT = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wconversion", "-Werror", f"-I{CSRC}"]
