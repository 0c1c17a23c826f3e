"""Opens a source by its URI, and looks into archives."""

from __future__ import annotations

from itertools import islice
from urllib.parse import urlsplit

from kubeloop.datasets.sources.archives import ArchiveFiles, is_archive
from kubeloop.datasets.sources.base import SOURCES, Source, SourceLimits
from kubeloop.errors import InputError


def open_source(uri: str, limits: SourceLimits | None = None) -> Source:
    """Open raw data by its URI; an archive that is all there is stands for what it holds.

    Raises:
        InputError: The scheme is unknown, or there is nothing to read.
    """
    limits = limits or SourceLimits()
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InputError(f"The source {uri!r} is no URI: {error}.") from error
    source = SOURCES[parts.scheme](uri, limits)
    if not is_archive(parts.path if parts.scheme else uri):  # a plain path may hold '#' and '?'
        return source
    try:
        files = list(islice(source.list_files(), 2))
        if len(files) == 1 and is_archive(files[0].path):
            return ArchiveFiles(source, files[0].path, limits)
    except BaseException:
        source.close()
        raise
    return source
