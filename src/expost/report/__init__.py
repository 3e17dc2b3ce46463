"""Reports: all about one or more runs on a page that is complete in itself."""

from expost.report.command import report

__all__ = ["report"]
