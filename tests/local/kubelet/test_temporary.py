from __future__ import annotations

from pathlib import Path

from kubeloop.local.kubelet.temporary import TemporaryFolders

UID = "9d5ed678-fe57-4a53-8a6a-0a1a2a3a4a5a"


def test_short_path_is_kept(tmp_path: Path) -> None:
    with TemporaryFolders(tmp_path) as folders:
        assert folders.find(Path("/short/tmp"), uid=UID) == Path("/short/tmp")
    assert list(tmp_path.iterdir()) == []


def test_long_path_is_replaced_until_the_end(tmp_path: Path) -> None:
    with TemporaryFolders(tmp_path) as folders:
        found = folders.find(Path("/long" * 20), uid=UID)
        found.mkdir()
        assert len(str(found)) < 40
        assert folders.find(Path("/long" * 20), uid=UID) == found
    assert not found.parent.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_control_plane_left_is_removed(tmp_path: Path) -> None:
    left = TemporaryFolders(tmp_path).find(Path("/long" * 20), uid=UID).parent
    assert left.is_dir()

    with TemporaryFolders(tmp_path):
        assert not left.exists()
