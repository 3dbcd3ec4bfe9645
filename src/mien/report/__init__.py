"""The report of a study: a page, tables and figures. It reads results and computes none."""

from mien.report.page import write_report

__all__ = ["write_report"]
