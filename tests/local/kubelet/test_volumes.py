from __future__ import annotations

import base64
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kubeloop.errors import InputError
from kubeloop.local.kubelet.references import MissingReferenceError, References
from kubeloop.local.kubelet.volumes import (
    Mounts,
    VolumeSpace,
    prepare_volumes,
    resolve_mounts,
)

REFERENCES = References(
    config_maps={"settings": {"data": {"a.txt": "A", "b.txt": "B"}}},
    secrets={"keys": {"data": {"token": base64.b64encode(b"\xfft").decode()}}},
    claims={"data": {}},
)


def prepare(tmp_path: Path, *volumes: dict[str, Any]) -> dict[str, Path]:  # JSON
    pod = {
        "metadata": {
            "name": "pod",
            "namespace": "default",
            "uid": "u",
            "labels": {"app": "web"},
        },
        "spec": {"containers": [{"name": "main"}], "volumes": list(volumes)},
    }
    space = VolumeSpace(pod=tmp_path / "pod", claims=tmp_path / "claims")
    return prepare_volumes(pod, space=space, references=REFERENCES, allocatable={"cpu": Decimal(4)})


def test_empty_dir_is_a_folder_of_the_pod(tmp_path: Path) -> None:
    volumes = prepare(tmp_path, {"name": "scratch", "emptyDir": {}})

    assert volumes == {"scratch": tmp_path / "pod" / "scratch"}
    assert list(volumes["scratch"].iterdir()) == []


def test_config_map_and_secret_are_files(tmp_path: Path) -> None:
    volumes = prepare(
        tmp_path,
        {"name": "all", "configMap": {"name": "settings"}},
        {
            "name": "some",
            "configMap": {"name": "settings", "items": [{"key": "b.txt", "path": "x/y"}]},
        },
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "none", "secret": {"secretName": "absent", "optional": True}},
    )

    assert {path.name: path.read_text() for path in volumes["all"].iterdir()} == {
        "a.txt": "A",
        "b.txt": "B",
    }
    assert (volumes["some"] / "x" / "y").read_text() == "B"
    assert (volumes["keys"] / "token").read_bytes() == b"\xfft"
    assert (volumes["keys"] / "token").stat().st_mode & 0o777 == 0o400
    assert list(volumes["none"].iterdir()) == []


def test_files_are_written_again_when_a_pod_is_prepared_again(tmp_path: Path) -> None:
    volume = {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}}
    prepare(tmp_path, volume)

    assert (prepare(tmp_path, volume)["keys"] / "token").read_bytes() == b"\xfft"


def test_downward_api_and_projected_volumes_are_files(tmp_path: Path) -> None:
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    volumes = prepare(
        tmp_path,
        {"name": "info", "downwardAPI": {"items": [labels]}},
        {
            "name": "both",
            "projected": {
                "sources": [
                    {"configMap": {"name": "settings"}},
                    {"secret": {"name": "keys"}},
                    {"downwardAPI": {"items": [labels]}},
                    {"serviceAccountToken": {"path": "token"}},
                ]
            },
        },
    )

    assert (volumes["info"] / "labels").read_text() == 'app="web"'
    assert {path.name for path in volumes["both"].iterdir()} == {
        "a.txt",
        "b.txt",
        "token",
        "labels",
    }


def test_claim_outlives_the_pod(tmp_path: Path) -> None:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}

    assert prepare(tmp_path, volume) == {"data": tmp_path / "claims" / "data"}


def test_host_path_is_the_path_itself(tmp_path: Path) -> None:
    wanted = tmp_path / "new" / "folder"
    source = {"path": str(wanted), "type": "DirectoryOrCreate"}

    assert prepare(tmp_path, {"name": "host", "hostPath": source}) == {"host": wanted}
    assert wanted.is_dir()


@pytest.mark.parametrize(
    ("volume", "error", "message"),
    [
        ({"configMap": {"name": "absent"}}, MissingReferenceError, 'configmap "absent" not found'),
        ({"secret": {"secretName": "absent"}}, MissingReferenceError, 'secret "absent" not found'),
        (
            {"persistentVolumeClaim": {"claimName": "absent"}},
            MissingReferenceError,
            'persistentvolumeclaim "absent" not found',
        ),
        (
            {"configMap": {"name": "settings", "items": [{"key": "c", "path": "c"}]}},
            MissingReferenceError,
            "non-existent config key: c",
        ),
        (
            {"configMap": {"name": "settings", "items": [{"key": "a.txt", "path": "../x"}]}},
            InputError,
            "must be relative",
        ),
        ({"hostPath": {"path": "/no/such", "type": "Directory"}}, MissingReferenceError, "no/such"),
        ({"nfs": {"server": "x", "path": "/"}}, InputError, "'nfs'"),
    ],
)
def test_volume_that_cannot_be_had_is_an_error_that_says_why(
    tmp_path: Path, volume: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepare(tmp_path, {"name": "v", **volume})


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("/mnt/models", "/real/models"),
        ("/mnt/models/digits/1", "/real/models/digits/1"),
        ("--model_dir=/mnt/models", "--model_dir=/real/models"),
        ("file:///mnt/models/x", "file:///real/models/x"),
        ("/mnt/models:/mnt/models/sub", "/real/models:/real/sub"),
        ('{"path": "/mnt/models"}', '{"path": "/real/models"}'),
        ("/mnt/models2", "/mnt/models2"),
        ("/mnt/models.old", "/mnt/models.old"),
        ("/x/mnt/models", "/x/mnt/models"),
        ("s3://bucket/mnt/models", "s3://bucket/mnt/models"),
    ],
)
def test_mount_paths_in_a_text_become_real_paths(text: str, translated: str) -> None:
    mounts = Mounts(
        folders={"/mnt/models": Path("/real/models"), "/mnt/models/sub": Path("/real/sub")}
    )

    assert mounts.translate(text) == translated


def test_sub_path_is_made_below_the_volume(tmp_path: Path) -> None:
    container = {
        "volumeMounts": [
            {"name": "v", "mountPath": "/a/", "subPath": "x/y"},
            {"name": "v", "mountPath": "/b", "subPathExpr": "$(NAME)"},
        ]
    }

    mounts = resolve_mounts(container, volumes={"v": tmp_path}, env={"NAME": "z"})

    assert mounts.translate("/a /b") == f"{tmp_path}/x/y {tmp_path}/z"
    assert mounts.locate("/a/deep") == tmp_path / "x" / "y" / "deep"
    assert mounts.locate("/c") is None
    assert (tmp_path / "x" / "y").is_dir()
