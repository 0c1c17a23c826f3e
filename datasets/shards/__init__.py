"""Shards: the files in which a commit keeps its examples.

One file a format; both are what other tools read too (WebDataset tar, Parquet). The bytes of a
shard depend on its rows alone. Used by ingestion and reading; knows nothing of commits.
"""

from kubeloop.datasets.shards.base import ShardFormat, ShardWriter

__all__ = ["ShardFormat", "ShardWriter"]
