"""The report of a build: one HTML file with figures, pictures and examples.

Not here: making any of it; the page gets values, and judges only the examples that it shows.
"""

from modeguard.offline.report.cases import Case, Example, cases_of
from modeguard.offline.report.page import Facts, ReportError, write_report
from modeguard.offline.report.pictures import png_of

__all__ = ["Case", "Example", "Facts", "ReportError", "cases_of", "png_of", "write_report"]
