"""Where an artifact lies, and where KFP's SDK looks for it."""

from __future__ import annotations

import re


def local_path(uri: str) -> str:
    """The path at which KFP's SDK expects an artifact with this URI."""
    for scheme, folder in (("gs://", "/gcs/"), ("s3://", "/s3/"), ("minio://", "/minio/")):
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    if uri.startswith("oci://"):
        return "/oci/" + uri.removeprefix("oci://").replace("/", "_") + "/models"
    return uri.removeprefix("file://")


def is_local(uri: str) -> bool:
    """Whether a URI is a path on this machine."""
    return local_path(uri).startswith("/") and not re.match(r"(gs|s3|minio|oci)://", uri)
