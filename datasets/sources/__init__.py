"""Where raw data comes from.

A source lists its files and gives their bytes, or gives rows; what they mean is a kind's business.
Sources are chosen by the scheme of their URI. Listing skips hidden files, never follows a link out
of the source, and is ordered, so that everything computed from it is the same on any machine.
"""

from kubeloop.datasets.sources import http, s3, sql  # each registers its schemes
from kubeloop.datasets.sources.base import SOURCES, Source, SourceFile, SourceLimits
from kubeloop.datasets.sources.local import LocalFiles
from kubeloop.datasets.sources.opening import open_source

__all__ = [
    "SOURCES",
    "LocalFiles",
    "Source",
    "SourceFile",
    "SourceLimits",
    "http",
    "open_source",
    "s3",
    "sql",
]
