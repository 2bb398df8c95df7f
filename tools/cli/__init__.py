"""The command `edgec`."""

from edgec.tools.cli.main import main

__all__ = ["main"]
