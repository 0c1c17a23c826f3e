"""Versioned datasets in an object store: sources, immutable commits, statistics, readers, stores.

Nobody outside this package knows the layout of a commit. Importing it loads neither numpy nor
Arrow, Pillow or an S3 client; the functions that need them do.
"""

from kubeloop.datasets.commits import Commit, Manifest, Shard, VersionHash, read_commit
from kubeloop.datasets.findings import Finding, Rejection, Severity
from kubeloop.datasets.ingest import ingest
from kubeloop.datasets.ingest_config import IngestConfig, Progress
from kubeloop.datasets.kinds import KINDS, DatasetKind, ScanOptions
from kubeloop.datasets.reading import (
    Dataset,
    EncodedImage,
    ImageExample,
    ImageSplit,
    Split,
    TextExample,
    TextSplit,
    open_dataset,
)
from kubeloop.datasets.reading import open_dataset as open  # noqa: A004 - the name users write
from kubeloop.datasets.sources import SOURCES, SourceLimits
from kubeloop.datasets.splits import TEST, TRAIN, VALIDATION, SplitConfig
from kubeloop.datasets.stores import STORES, FileStore, ObjectStore, S3Store, open_store

__all__ = [
    "KINDS",
    "SOURCES",
    "STORES",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Commit",
    "Dataset",
    "DatasetKind",
    "EncodedImage",
    "FileStore",
    "Finding",
    "ImageExample",
    "ImageSplit",
    "IngestConfig",
    "Manifest",
    "ObjectStore",
    "Progress",
    "Rejection",
    "S3Store",
    "ScanOptions",
    "Severity",
    "Shard",
    "SourceLimits",
    "Split",
    "SplitConfig",
    "TextExample",
    "TextSplit",
    "VersionHash",
    "ingest",
    "open",
    "open_dataset",
    "open_store",
    "read_commit",
]
