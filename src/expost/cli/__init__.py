"""The command line: words are read, commands are called, results are printed."""

from expost.cli.parsing import main

__all__ = ["main"]
