import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from kubeloop.datasets.stores import FileStore
from kubeloop.errors import InputError
from kubeloop.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint

SETTINGS = {"learning_rate": 0.1, "dataset_version_hash": "abc"}


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "checkpoints")


def save(store: FileStore, num_steps: int) -> None:
    state = {"weights": torch.full((3,), float(num_steps)), "nested": {"lists": [1, 2.5, "x"]}}
    save_checkpoint(store, Checkpoint(num_steps=num_steps, state=state, settings=SETTINGS))


def test_the_newest_checkpoint_is_loaded(store: FileStore) -> None:
    for num_steps in (9, 10, 100):
        save(store, num_steps)

    checkpoint = load_checkpoint(store, SETTINGS)

    assert checkpoint is not None
    assert checkpoint.num_steps == 100
    assert checkpoint.state["weights"].tolist() == [100.0] * 3
    assert checkpoint.state["nested"] == {"lists": [1, 2.5, "x"]}


def test_a_certain_checkpoint_can_be_asked_for(store: FileStore) -> None:
    for num_steps in (10, 20):
        save(store, num_steps)

    checkpoint = load_checkpoint(store, SETTINGS, num_steps=10)

    assert checkpoint is not None
    assert checkpoint.num_steps == 10


def test_an_empty_store_has_none(store: FileStore) -> None:
    assert load_checkpoint(store, SETTINGS) is None


def test_old_checkpoints_are_dropped(store: FileStore) -> None:
    for num_steps in range(5):
        save(store, num_steps)

    assert [key for key in store.list() if key.endswith(".pt")] == [
        "000000000003.pt",
        "000000000004.pt",
    ]


def damage_content(store: FileStore) -> None:
    data = bytearray(store.read("000000000002.pt"))
    data[len(data) // 2] ^= 1
    store.write("000000000002.pt", bytes(data))


def remove_content(store: FileStore) -> None:
    store.delete("000000000002.pt")


def damage_facts(store: FileStore) -> None:
    store.write("000000000002.json", b"{half")


def never_finish(store: FileStore) -> None:
    store.delete("000000000002.json")


@pytest.mark.parametrize("damage", [damage_content, remove_content, damage_facts, never_finish])
def test_a_damaged_checkpoint_is_passed_over(store: FileStore, damage: Any) -> None:
    save(store, 1)
    save(store, 2)
    damage(store)

    checkpoint = load_checkpoint(store, SETTINGS)

    assert checkpoint is not None
    assert checkpoint.num_steps == 1


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('executed')",)


def test_a_checkpoint_is_never_executed(store: FileStore) -> None:
    data = pickle.dumps(Trap(), protocol=2)
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "settings": SETTINGS}
    store.write("000000000001.pt", data)
    store.write("000000000001.json", json.dumps(facts).encode())

    assert load_checkpoint(store, SETTINGS) is None


def test_a_checkpoint_of_another_run_is_refused(store: FileStore) -> None:
    save(store, 1)

    with pytest.raises(InputError, match=r"learning_rate 0\.1, not 0\.2"):
        load_checkpoint(store, SETTINGS | {"learning_rate": 0.2})
