"""Kinds of datasets: how the files of a source become labelled examples.

One file a kind; importing this package registers the built-in ones.
"""

from kubeloop.datasets.kinds.base import KINDS, Candidate, DatasetKind, Listing, Rejection
from kubeloop.datasets.kinds.image_folder import ImageFolder

KINDS.register(ImageFolder.name, ImageFolder())

__all__ = ["KINDS", "Candidate", "DatasetKind", "ImageFolder", "Listing", "Rejection"]
