"""Kinds of datasets: how a source becomes labelled examples.

One file a kind; importing this package registers the built-in ones.
"""

from kubeloop.datasets.kinds.base import KINDS, DatasetKind, ScanOptions
from kubeloop.datasets.kinds.images import ImageClassification, sort_labels
from kubeloop.datasets.kinds.tabular import Tabular
from kubeloop.datasets.kinds.text import TextClassification

for kind in (ImageClassification(), TextClassification(), Tabular()):
    KINDS.register(kind.name, kind)

__all__ = [
    "KINDS",
    "DatasetKind",
    "ImageClassification",
    "ScanOptions",
    "Tabular",
    "TextClassification",
    "sort_labels",
]
