"""A dataset and checkpoints as plain files, for programs that know nothing of kubeloop."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kubeloop.datasets.reading import Dataset, TextSplit, open_dataset
from kubeloop.datasets.stores import FileStore, ObjectStore, check_key, open_store
from kubeloop.errors import TransientError

DESCRIPTION_FILE = "dataset.json"
_SYNC_SECONDS = 5.0


def write_plain_dataset(uri: str, folder: Path) -> Dataset:
    """Write a commit as files that any program can read.

    Images become `<split>/<label>/<number><extension>`, texts `<split>.csv` with the columns `text`
    and `label`; `dataset.json` lists labels (in the order of their index) and splits.

    Raises:
        KubeloopError: See `open_dataset`.
    """
    dataset = open_dataset(uri)
    for name in dataset.splits:
        split = dataset.split(name)
        if isinstance(split, TextSplit):
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["text", "label"])
                writer.writerows((text, dataset.labels[index]) for text, index in split)
            continue
        folders = [folder / name / check_key(label) for label in dataset.labels]
        for path in folders:
            path.mkdir(parents=True, exist_ok=True)
        for number in range(len(split)):
            image = split[number]
            path = folders[image.class_index] / f"{number:07d}{image.extension}"
            path.write_bytes(image.data)
    facts = {"labels": dataset.labels, "splits": dataset.splits}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(facts, indent=2), "utf-8")
    return dataset


@contextmanager
def mirrored_folder(uri: str, folder: Path) -> Iterator[Path]:
    """Give a folder whose files are those below a URI, and keep the URI up to date with it.

    A folder on this machine is used as it is. For another store the files are fetched first; what
    changes is written back every few seconds and at the end. Write a file beside its place and
    rename it, so that no half of one is ever mirrored.
    """
    store = open_store(uri)
    if isinstance(store, FileStore):
        store.root.mkdir(parents=True, exist_ok=True)
        yield store.root
        return
    for key in store.list():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        store.download(key, folder / key)
    mirror, is_over = _Mirror(store, folder), threading.Event()
    mirror.note()

    def keep_up() -> None:
        while not is_over.wait(_SYNC_SECONDS):
            mirror.write_back(suppress=True)

    thread = threading.Thread(target=keep_up, name="mirror", daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        is_over.set()
        thread.join()
        mirror.write_back(suppress=False)


class _Mirror:
    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._known: dict[str, tuple[int, int]] = {}

    def note(self) -> None:
        """Take the files as they are for written."""
        self._known = self._look()

    def write_back(self, *, suppress: bool) -> None:
        """Write what has changed; a store that does not answer is asked again next time."""
        found = self._look()
        try:
            for key, state in found.items():
                if self._known.get(key) != state:
                    self._store.upload(key, self._folder / key)
                    self._known[key] = state
            for key in self._known.keys() - found.keys():
                self._store.delete(key)
                del self._known[key]
        except TransientError:
            if not suppress:
                raise

    def _look(self) -> dict[str, tuple[int, int]]:
        paths = [path for path in self._folder.rglob("*") if path.is_file()]
        facts = {path.relative_to(self._folder).as_posix(): path.stat() for path in paths}
        return {key: (fact.st_mtime_ns, fact.st_size) for key, fact in facts.items()}
