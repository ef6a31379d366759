"""The command `tpv`: parsing and printing only; torch is imported when a command needs it."""

from tpv.cli.main import main

__all__ = ["main"]
