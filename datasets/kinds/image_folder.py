"""Image classification from folders: one folder a class, images anywhere below it."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from kubeloop.datasets.images import IMAGE_EXTENSIONS, inspect_image
from kubeloop.datasets.kinds.base import Candidate, DatasetKind, Listing, Rejection
from kubeloop.datasets.sources import Source
from kubeloop.errors import InputError


class ImageFolder(DatasetKind):
    """`<source>/<label>/…/<image>`."""

    name = "image_folder"

    def list_candidates(self, source: Source) -> Listing:
        """Take every image file below a folder as an example of that folder's class."""
        candidates: list[Candidate] = []
        rejected: list[Rejection] = []
        folders: set[str] = set()
        files = source.list_files()
        for file in files:
            label, slash, _ = file.path.partition("/")
            extension = PurePosixPath(file.path).suffix.lower()
            if not slash:
                rejected.append(Rejection(path=file.path, reason="not in the folder of a class"))
                continue
            folders.add(label)
            if extension in IMAGE_EXTENSIONS:
                candidates.append(Candidate(path=file.path, label=label))
            else:
                rejected.append(
                    Rejection(
                        path=file.path, reason=f"not an image ({extension or 'no'} extension)"
                    )
                )
        labels = tuple(sorted({candidate.label for candidate in candidates}, key=_natural_order))
        _check_shape(source, labels=labels, folders=folders, is_empty=not files)
        return Listing(candidates=tuple(candidates), rejected=tuple(rejected), labels=labels)

    def inspect(self, data: bytes, *, max_pixels: int) -> Mapping[str, Any]:
        """Decode the image."""
        return asdict(inspect_image(data, max_pixels=max_pixels))

    def summarize(self, facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Count formats and sizes."""
        widths = [fact["width"] for fact in facts]
        heights = [fact["height"] for fact in facts]
        sizes = Counter(f"{width}x{height}" for width, height in zip(widths, heights, strict=True))
        return {
            "formats": dict(sorted(Counter(fact["format"] for fact in facts).items())),
            "num_grey": sum(fact["is_grey"] for fact in facts),
            "width": _describe_numbers(widths),
            "height": _describe_numbers(heights),
            "most_common_sizes": dict(sorted(sizes.items(), key=_by_count)[:10]),
        }

    def describe_schema(self) -> dict[str, str]:
        """Name the features."""
        return {"image": "encoded image", "label": "class index"}


def _check_shape(
    source: Source, *, labels: Sequence[str], folders: set[str], is_empty: bool
) -> None:
    if is_empty:
        raise InputError(f"The source {source.uri!r} is empty; put images in one folder a class.")
    if not folders:
        raise InputError(
            f"The source {source.uri!r} has no class folders; put images in one folder a class."
        )
    if without := sorted(folders - set(labels)):
        raise InputError(
            f"Class folder {without[0]!r} in {source.uri!r} holds no image;"
            " add images or remove it."
        )
    if len(labels) < 2:
        raise InputError(
            f"The source {source.uri!r} has one class, {labels[0]!r}; classification needs two."
        )


def _natural_order(label: str) -> tuple[list[tuple[int, str]], str]:
    """Sort '10' after '9'."""
    parts = re.findall(r"[0-9]+|[^0-9]+", label)
    key = [
        (int(part), "") if part.isascii() and part.isdigit() else (sys.maxsize, part)
        for part in parts
    ]
    return key, label


def _describe_numbers(values: Sequence[int]) -> dict[str, float]:
    return {"min": min(values), "max": max(values), "mean": round(sum(values) / len(values), 3)}


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]
