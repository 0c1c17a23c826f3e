"""The init container that brings a model to its pod: `… storage_initializer SOURCE TARGET`.

It stands in for KServe's storage initializer on the laptop, with the same arguments, and reads
every object store that kubeloop reads: folders, file://, s3:// and minio://. Files appear under
their names only when they are whole.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from kubeloop.datasets.stores import ObjectStore, open_object, open_store
from kubeloop.errors import InputError, KubeloopError, TransientError

logger = logging.getLogger(__name__)

_NUM_ATTEMPTS = 3
_PARTIAL = ".partial"


def fetch_model(source: str, target: Path) -> list[str]:
    """Copy everything below `source`, or the one object that it names, into the folder `target`.

    Returns:
        Names of the files, relative to `target`.

    Raises:
        InputError: There is nothing at `source`, or its scheme is not known.
        TransientError: The object store does not answer.
    """
    store = open_store(source)
    keys = list(store.list())
    if not keys:
        store, key = open_object(source)
        if not store.exists(key):
            raise InputError(
                f"Failed to fetch model {source}: there is no such folder, prefix or object;"
                " check the model's URI and, for s3://, the service account's secret."
            )
        keys = [key]
    for key in keys:
        _fetch(store, key, target / key)
    return keys


def _fetch(store: ObjectStore, key: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + _PARTIAL)
    for attempt in range(1, _NUM_ATTEMPTS + 1):
        try:
            store.download(key, partial)
            break
        except TransientError:
            if attempt == _NUM_ATTEMPTS:
                raise
    partial.replace(target)


def main(arguments: Sequence[str]) -> int:
    """Run the init container; returns its exit code."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m kubeloop.kserve.storage_initializer SOURCE TARGET\n")
        return 2
    source, target = arguments[0], Path(arguments[1])
    try:
        keys = fetch_model(source, target)
    except KubeloopError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    size = sum((target / key).stat().st_size for key in keys)
    logger.info("fetched %d files, %d bytes", len(keys), size, extra={"source": source})
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    sys.exit(main(sys.argv[1:]))
