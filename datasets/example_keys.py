"""Which examples a shard holds, told without reading it.

Examples that are the same have the same key. Those of a shard's examples lie beside it in a small
object, so that adding to a dataset finds what it has already without reading all its shards. The
object is written before its shard; where it is missing or damaged, the shard itself tells.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kubeloop.datasets.commits import KEYS, Shard
from kubeloop.datasets.kinds.base import DatasetKind
from kubeloop.datasets.shards.base import LABEL, list_digests
from kubeloop.datasets.stores import ObjectStore
from kubeloop.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_KEY_BYTES = 16
_CHECKSUM_BYTES = 32
_KEYS_OF_A_FILE = 1 << 18
_MAX_FILES = 64


def key_of(kind: DatasetKind, label: str, digest: bytes) -> bytes:
    """Return what is the same for examples that are the same; it ends in no zero byte."""
    # A kind without labels may take a column for one, which its digest covers.
    told_apart = digest + label.encode() if kind.is_labelled else digest
    return hashlib.sha256(told_apart).digest()[: _KEY_BYTES - 1] + b"\1"


def list_keys(kind: DatasetKind, rows: pa.RecordBatch) -> bytes:
    """Return the keys of scanned rows, one after the other."""
    pairs = zip(rows.column(LABEL).to_pylist(), list_digests(rows), strict=True)
    return b"".join(key_of(kind, label, digest) for label, digest in pairs)


def split_keys(keys: bytes) -> Iterator[bytes]:
    """Yield keys one by one."""
    return (keys[start : start + _KEY_BYTES] for start in range(0, len(keys), _KEY_BYTES))


def write_keys(dataset: ObjectStore, shard: Shard, keys: bytes) -> None:
    """Keep the keys of a shard's examples beside it."""
    # Staged, as shards are: a write that waits for the disk costs more than what it would save.
    folder = dataset.staging_folder()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".staging-", delete=False) as file:
        path = Path(file.name)
        try:
            file.write(_checksum(shard, keys) + keys)
            file.flush()
            dataset.adopt(f"{KEYS}/{shard.sha256}", path)
        finally:
            path.unlink(missing_ok=True)


def read_keys(dataset: ObjectStore, shard: Shard) -> bytes | None:
    """Return the keys that are kept beside a shard; None where there are none or they differ."""
    try:
        data = dataset.read(f"{KEYS}/{shard.sha256}")
    except InputError:
        return None
    keys = data[_CHECKSUM_BYTES:]
    is_whole = len(keys) == _KEY_BYTES * shard.num_rows and data == _checksum(shard, keys) + keys
    return keys if is_whole else None


def _checksum(shard: Shard, keys: bytes) -> bytes:
    return hashlib.sha256(shard.sha256.encode() + keys).digest()


class KeyFiles:
    """Keys of examples, noted in files so that equal ones meet in one.

    Args:
        folder: Where the files lie.
        num_keys: About how many there will be; what has to be compared has the same number.
    """

    def __init__(self, folder: Path, *, num_keys: int) -> None:
        num_files = min(1 + num_keys // _KEYS_OF_A_FILE, _MAX_FILES)
        self._paths = [folder / f"{number:02d}" for number in range(num_files)]

    @classmethod
    @contextmanager
    def temporary(cls, *, num_keys: int) -> Iterator[KeyFiles]:
        """Keep the files for the time of the context."""
        with tempfile.TemporaryDirectory(prefix="kubeloop-join-") as folder:
            yield cls(Path(folder), num_keys=num_keys)

    def add(self, batches: Iterable[bytes]) -> None:
        """Note keys."""
        import numpy as np

        with ExitStack() as stack:
            files = [stack.enter_context(path.open("ab")) for path in self._paths]
            for keys in batches:
                records = np.frombuffer(keys, f"S{_KEY_BYTES}")
                places = np.frombuffer(keys, np.uint8)[::_KEY_BYTES] % len(files)
                for place in np.unique(places).tolist():
                    files[place].write(records[places == place].tobytes())

    def read(self) -> Iterator[NDArray[np.bytes_]]:
        """Yield the keys of each file."""
        import numpy as np

        for path in self._paths:
            yield np.fromfile(path, f"S{_KEY_BYTES}")
