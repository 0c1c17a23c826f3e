"""Whether a commit, and the source it was made from, still are what was recorded.

Reading verifies what it reads, and may read copies on this machine; this reads everything, from the
store itself.
"""

from __future__ import annotations

import hashlib
import tempfile

from kubeloop.datasets.commits import Commit, dataset_of, read_commit
from kubeloop.datasets.ingest import ingest
from kubeloop.datasets.ingest_config import IngestConfig
from kubeloop.datasets.kinds import ScanOptions
from kubeloop.datasets.splits import SplitConfig
from kubeloop.errors import InputError, IntegrityError

_MAX_NAMED = 5


def verify_commit(uri: str) -> Commit:
    """Read a commit with all its shards, and compare their bytes with their digests.

    Raises:
        InputError: There is no such commit.
        IntegrityError: The manifest or a shard differs, or a shard is missing.
    """
    commit = read_commit(uri)
    dataset = dataset_of(uri)
    wrong: list[str] = []
    shards = commit.manifest.shards
    for shard in shards:
        try:
            data = dataset.read(shard.key)
        except InputError:
            wrong.append(f"{shard.key} is missing")
        else:
            if hashlib.sha256(data).hexdigest() != shard.sha256:
                wrong.append(f"{shard.key} differs from its sha256")
    if wrong:
        named = "; ".join(wrong[:_MAX_NAMED])
        raise IntegrityError(f"{len(wrong)} of {len(shards)} shards of {uri}: {named}.")
    return commit


def verify_source(commit: Commit) -> None:
    """Ingest a commit's source again, into a folder that is thrown away, and compare.

    Raises:
        InputError: The source cannot be read, or the commit does not say how it was.
        IntegrityError: The source holds something else now.
    """
    settings = commit.record.settings
    if not settings or not commit.source_uri:
        raise InputError(f"The commit {commit.uri} does not record how its source was ingested.")
    with tempfile.TemporaryDirectory(prefix="kubeloop-verify-") as folder:
        config = IngestConfig(
            name=commit.name,
            source=commit.source_uri,
            store=folder,
            kind=settings["kind"],
            splits=SplitConfig(**settings["splits"]),
            scan=ScanOptions(**settings["scan"]),
            max_corrupt_fraction=settings["max_corrupt_fraction"],
            max_examples_per_class=settings["max_examples_per_class"],
            shard_bytes=settings["shard_bytes"],
            full=True,
        )
        again = ingest(config)
    if again.source_digest != commit.source_digest:
        raise IntegrityError(
            f"The source {commit.source_uri} has digest {again.source_digest} now, not the"
            f" recorded {commit.source_digest}."
        )
