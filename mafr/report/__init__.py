"""One HTML file about many scored parts, which opens without a server and without network.

`Report` takes parts one by one (`part`), each encoded at once (`encode`), and writes the page (`page.html`, `page.css`,
`page.js`, and what `mafr.page` shares) with its histogram (`histogram`). Read `report` first.
"""

from mafr.report.part import Part
from mafr.report.report import Report

__all__ = ["Part", "Report"]
