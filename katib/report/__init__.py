"""A picture of a search: history, curves, importances, slices, trials.

For the tuning component and the command line; it asks nobody but Katib's DB manager.
"""

from kubeloop.katib.report.curves import Curves, read_curves
from kubeloop.katib.report.page import build_search_page, render_report

__all__ = ["Curves", "build_search_page", "read_curves", "render_report"]
