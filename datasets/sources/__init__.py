"""Where raw data comes from.

A source lists its files and gives their bytes, or gives rows; what they mean is a kind's business.
Sources are chosen by the scheme of their URI. Listing skips hidden files, never follows a link out
of the source, and is ordered, so that everything computed from it is the same on any machine.
"""

from urllib.parse import urlsplit

from kubeloop.datasets.sources.base import SOURCES, Source, SourceFile, SourceLimits
from kubeloop.datasets.sources.local import LocalFiles

__all__ = ["SOURCES", "LocalFiles", "Source", "SourceFile", "SourceLimits", "open_source"]


def open_source(uri: str, limits: SourceLimits | None = None) -> Source:
    """Open raw data by its URI.

    Raises:
        InputError: The scheme is unknown, or there is nothing to read.
    """
    return SOURCES[urlsplit(uri).scheme](uri, limits or SourceLimits())
