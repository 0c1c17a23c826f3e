import asyncio
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from kubeloop.errors import PermanentError
from kubeloop.local.state import AlreadyRunningError, Endpoints, StateFolder


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path / "state")
    state.prepare()
    return state


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints(
        pid=1,
        started_at="2026-01-01T00:00:00+00:00",
        version="0",
        api_url="https://127.0.0.1:1",
        kfp_url="http://127.0.0.1:2",
        gateway_url="http://127.0.0.1:3",
        db_manager_address="127.0.0.1:4",
        namespace="default",
        token="secret",
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_is_held_by_one_process_at_a_time(folder: StateFolder) -> None:
    with folder.lock():
        assert folder.is_running()
        with pytest.raises(AlreadyRunningError, match="kubeloop down"), folder.lock():
            pass
    assert not folder.is_running()


def test_holder_of_a_folder_is_known_by_its_process(folder: StateFolder) -> None:
    assert folder.find_holder() is None
    with folder.lock():
        assert folder.find_holder() == os.getpid()
    assert folder.find_holder() is None


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_goes_away_is_noticed(folder: StateFolder, is_replaced: bool) -> None:
    async def lose(lock: int) -> None:
        shutil.rmtree(folder.root)
        if is_replaced:
            folder.prepare()
            folder.lock_file.touch()
        await asyncio.wait_for(folder.watch(lock), timeout=10)

    with pytest.raises(PermanentError, match="was deleted, moved or replaced"), folder.lock() as it:
        asyncio.run(lose(it))


def test_what_fails_for_lack_of_the_folder_says_that_it_is_gone(folder: StateFolder) -> None:
    def lose() -> None:
        with folder.lock():
            shutil.rmtree(folder.root)
            raise OSError("disk I/O error")

    with pytest.raises(PermanentError, match="was deleted") as caught:
        lose()
    assert isinstance(caught.value.__cause__, OSError)


def test_a_full_disk_is_said_before_anything_starts(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(folder.root)._replace(free=3 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(PermanentError, match="has 3 MiB left"):
        folder.prepare()


def test_folder_that_was_never_used_does_not_run(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "none")
    assert not folder.is_running()
    assert folder.read_endpoints() is None
    assert not folder.root.exists()


def test_what_is_published_is_read_back_until_it_is_retracted(
    folder: StateFolder, endpoints: Endpoints
) -> None:
    folder.publish(endpoints)
    assert folder.read_endpoints() == endpoints
    folder.retract()
    assert folder.read_endpoints() is None


def test_half_written_endpoints_are_none(folder: StateFolder) -> None:
    folder.endpoints_file.write_text('{"pid":')
    assert folder.read_endpoints() is None
    folder.endpoints_file.write_text('{"pid": 1}')
    assert folder.read_endpoints() is None


def test_token_stays_the_same_and_is_private(folder: StateFolder) -> None:
    token = folder.read_token()
    assert len(token) >= 32
    assert StateFolder(folder.root).read_token() == token
    assert mode(folder.root / "token") == 0o600


def test_files_with_secrets_are_readable_by_their_owner_only(
    folder: StateFolder, endpoints: Endpoints
) -> None:
    folder.publish(endpoints)
    for path in (folder.kubeconfig, folder.endpoints_file, folder.log):
        assert mode(path) == 0o600
    assert mode(folder.pods) == 0o700
    assert mode(folder.root) == 0o700


def test_kubeconfig_names_server_token_namespace_and_authority(
    folder: StateFolder, endpoints: Endpoints, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text("PEM")
    folder.publish(endpoints, authority=authority)
    config = json.loads(folder.kubeconfig.read_text())
    (cluster,), (user,), (context,) = config["clusters"], config["users"], config["contexts"]
    assert cluster["cluster"] == {
        "server": "https://127.0.0.1:1",
        "certificate-authority-data": "UEVN",
    }
    assert user["user"] == {"token": "secret"}
    assert context["context"]["namespace"] == "default"
    assert config["current-context"] == context["name"]


def test_folder_that_cannot_be_made_is_refused_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermanentError, match="--state or KUBELOOP_HOME"):
        StateFolder(tmp_path / "file" / "state").prepare()
