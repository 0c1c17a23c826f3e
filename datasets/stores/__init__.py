"""Object stores: a folder or an S3 bucket behind one small interface.

Used by everything that keeps bytes: datasets, checkpoints, model packages. Importing it loads no S3
client.
"""

from kubeloop.datasets.stores.base import (
    OBJECT_STORE_SECRET,
    OBJECT_STORE_VARIABLES,
    STORES,
    ObjectStore,
    check_key,
    open_object,
    open_store,
)
from kubeloop.datasets.stores.files import FileStore
from kubeloop.datasets.stores.s3 import S3Store, connect_s3

__all__ = [
    "OBJECT_STORE_SECRET",
    "OBJECT_STORE_VARIABLES",
    "STORES",
    "FileStore",
    "ObjectStore",
    "S3Store",
    "check_key",
    "connect_s3",
    "open_object",
    "open_store",
]
