"""Artifacts that lie in an S3 object store: copied here for a step, and back after it.

As on a cluster, a step works on files at `/s3/…` or `/minio/…` that KFP's launcher moves, and sees
the artifact's real URI. Here the engine moves them, to and from a folder that is mounted at those
paths. What was copied stays in that folder, so that a step need not fetch what the step before it
wrote; it may be removed while no run is active.

Where a store is and what opens it is read where KFP's launcher reads it: the providers in the
ConfigMap `kfp-launcher`, and for `minio://` the Secret `mlpipeline-minio-artifact`. The Secret that
kubeloop's own components read their object store from serves too. Google's and Azure's stores are
not supported, nor are query strings in a pipeline root.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from kubeloop.errors import InputError, NotFoundError
from kubeloop.local.api.resources import CONFIG_MAPS, SECRETS, Resource
from kubeloop.local.client import Client
from kubeloop.optional_imports import import_from_extra


class NotConfiguredError(InputError):
    """Nothing says where a store is."""


_URI = re.compile(r"(?P<scheme>s3|minio)://(?P<bucket>[^/?#]+)(?:/(?P<key>[^?#]*))?")
_LAUNCHER_CONFIG = "kfp-launcher"
_MINIO_SECRET = "mlpipeline-minio-artifact"  # noqa: S105  # a name
_OWN_SECRET = "kubeloop-object-store"  # noqa: S105  # a name
_ENDPOINTS = {"s3": "s3.amazonaws.com", "minio": "minio-service.kubeflow:9000"}
_FALSE = ("0", "false", "no")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """An object, or all objects below a key."""

    scheme: str
    bucket: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAccess:
    """Where a store answers, and what opens it."""

    endpoint: str
    secure: bool
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None


def parse_location(uri: str) -> Location | None:
    """Where a URI leads; None where that is no supported store."""
    found = _URI.fullmatch(uri)
    if found is None:
        return None
    key = (found["key"] or "").strip("/")
    return Location(scheme=found["scheme"], bucket=found["bucket"], key=key)


class ObjectStores:
    """The object stores that a namespace is configured for."""

    def __init__(self, client: Client, *, namespace: str, folder: Path) -> None:
        self._client = client
        self._namespace = namespace
        self._folder = folder

    def path(self, uri: str) -> Path:
        """Where the copy of an artifact is, or will be."""
        location = parse_location(uri)
        assert location is not None
        return self.mounted(location.scheme) / location.bucket / location.key

    def mounted(self, scheme: str) -> Path:
        """The folder that steps see at `/{scheme}`."""
        return self._folder / scheme

    async def check(self, uri: str) -> None:
        """See that the store behind a URI is configured.

        Raises:
            InputError: It is not; the message says what to create.
        """
        await self._open(uri)

    async def fetch(self, uri: str) -> None:
        """Copy an artifact here.

        Raises:
            InputError: There is none, or the store cannot be read.
        """
        access, location = await self._open(uri)
        await asyncio.to_thread(_download, access, location, self.path(uri), uri)

    async def put(self, uri: str, path: Path) -> None:
        """Copy a file, or a folder of files, to an artifact's place.

        Raises:
            InputError: The store cannot be written.
        """
        access, location = await self._open(uri)
        await asyncio.to_thread(_upload, access, location, path, uri)

    async def digest(self, uri: str) -> str:
        """A digest of what the store says of an artifact's content; empty where it is not known."""
        try:
            access, location = await self._open(uri)
            return await asyncio.to_thread(_digest, access, location, uri)
        except InputError:
            return ""

    async def _open(self, uri: str) -> tuple[StoreAccess, Location]:
        location = parse_location(uri)
        if location is None:
            raise InputError(f"{uri!r} is not of the form s3://BUCKET/KEY or minio://BUCKET/KEY")
        launcher = await self._read(CONFIG_MAPS, _LAUNCHER_CONFIG)
        if provider := _find_provider(launcher.get("providers", ""), location):
            secret = (provider.get("credentials") or {}).get("secretRef") or {}
            data = await self._read(SECRETS, secret.get("secretName", ""))
            return _access_of_provider(provider, location, secret=secret, data=data), location
        if own := await self._read(SECRETS, _OWN_SECRET):
            return _access_of_variables(own, location), location
        minio = await self._read(SECRETS, _MINIO_SECRET)
        if location.scheme == "minio" and minio:
            keys = {"accessKeyKey": "accesskey", "secretKeyKey": "secretkey"}
            plain = {"disableSSL": True}
            return _access_of_provider(plain, location, secret=keys, data=minio), location
        raise NotConfiguredError(
            f"nothing says how to open {location.scheme}://{location.bucket}; create the Secret "
            f"{_OWN_SECRET!r} with S3_ENDPOINT, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in "
            f"namespace {self._namespace!r}, or the ConfigMap {_LAUNCHER_CONFIG!r} as for KFP"
        )

    async def _read(self, resource: Resource, name: str) -> dict[str, str]:
        """The texts in a ConfigMap or Secret; none where there is none."""
        if not name:
            return {}
        try:
            found = await self._client.get(resource, name, namespace=self._namespace)
        except NotFoundError:
            return {}
        data: Mapping[str, str] = found.get("data") or {}
        if resource is SECRETS:
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        return dict(data)


def _find_provider(text: str, location: Location) -> dict[str, Any]:
    """The settings of a launcher's configuration that apply; those of an override win."""
    try:
        provider = ((yaml.safe_load(text) or {}) if text else {}).get(location.scheme) or {}
        for override in provider.get("overrides") or ():
            prefix = (override.get("keyPrefix") or "").strip("/")
            if override.get("bucketName") == location.bucket and location.key.startswith(prefix):
                return {**(provider.get("default") or {}), **override}
        return dict(provider.get("default") or {})
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise InputError(
            f"the providers in ConfigMap {_LAUNCHER_CONFIG!r} are not understood: {error}"
        ) from error


def _access_of_provider(
    provider: Mapping[str, Any],
    location: Location,
    *,
    secret: Mapping[str, str],
    data: Mapping[str, str],
) -> StoreAccess:
    endpoint, secure = _split_endpoint(provider.get("endpoint") or _ENDPOINTS[location.scheme])
    region = provider.get("region")
    if (provider.get("credentials") or {}).get("fromEnv"):
        env = {"S3_ENDPOINT": endpoint, **os.environ}
        return _access_of_variables({**env, "AWS_REGION": region or ""}, location)
    try:
        keys = data[secret["accessKeyKey"]], data[secret["secretKeyKey"]]
    except KeyError as error:
        raise InputError(
            f"the Secret {secret.get('secretName')!r} named by ConfigMap {_LAUNCHER_CONFIG!r}, or "
            f"its key {error}, does not exist"
        ) from error
    return StoreAccess(
        endpoint=endpoint,
        secure=secure and not provider.get("disableSSL"),
        region=region,
        access_key=keys[0],
        secret_key=keys[1],
    )


def _access_of_variables(env: Mapping[str, str], location: Location) -> StoreAccess:
    endpoint, secure = _split_endpoint(env.get("S3_ENDPOINT") or _ENDPOINTS[location.scheme])
    return StoreAccess(
        endpoint=endpoint,
        secure=secure and env.get("S3_USE_HTTPS", "").lower() not in _FALSE,
        region=env.get("AWS_REGION") or None,
        access_key=env.get("AWS_ACCESS_KEY_ID") or None,
        secret_key=env.get("AWS_SECRET_ACCESS_KEY") or None,
        session_token=env.get("AWS_SESSION_TOKEN") or None,
    )


def _split_endpoint(endpoint: str) -> tuple[str, bool]:
    scheme, separator, host = endpoint.rpartition("://")
    return host.rstrip("/"), scheme != "http" if separator else True


def _connect(access: StoreAccess) -> Any:  # a Minio client: the library carries few types
    with import_from_extra("s3", why="s3:// needs minio"):
        from minio import Minio
    return Minio(
        access.endpoint,
        access_key=access.access_key,
        secret_key=access.secret_key,
        session_token=access.session_token,
        region=access.region,
        secure=access.secure,
    )


@contextmanager
def _store_errors(verb: str, uri: str, access: StoreAccess) -> Iterator[None]:
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except InputError:  # which is a ValueError
        raise
    except (MinioException, HTTPError, OSError, ValueError) as error:
        cause = getattr(error, "message", None) or error
        raise InputError(f"cannot {verb} {uri} at {access.endpoint}: {cause}") from error


def _list(client: Any, location: Location) -> Iterator[tuple[str, Any]]:
    """The objects of an artifact, each with its path below the artifact's own."""
    for entry in client.list_objects(location.bucket, prefix=location.key, recursive=True):
        name = str(entry.object_name)
        if name == location.key:
            yield "", entry
        elif name.startswith(f"{location.key}/") or not location.key:
            yield name.removeprefix(f"{location.key}/"), entry


def _download(access: StoreAccess, location: Location, path: Path, uri: str) -> None:
    client = _connect(access)
    with _store_errors("read", uri, access):
        entries = list(_list(client, location))
        if not entries:
            raise InputError(f"there is nothing at {uri}, an input of the task")
        for relative, entry in entries:
            if ".." in PurePosixPath(relative).parts:
                raise InputError(f"{uri} has an object {relative!r}, which is no path below it")
            target = path / relative if relative else path
            client.fget_object(location.bucket, entry.object_name, str(target))


def _upload(access: StoreAccess, location: Location, path: Path, uri: str) -> None:
    client = _connect(access)
    with _store_errors("write", uri, access):
        files = sorted(file for file in path.rglob("*") if file.is_file())
        for file in [path] if path.is_file() else files:
            relative = file.relative_to(path).as_posix()
            key = location.key if file == path else f"{location.key}/{relative}"
            client.fput_object(location.bucket, key, str(file))


def _digest(access: StoreAccess, location: Location, uri: str) -> str:
    client = _connect(access)
    digest = hashlib.sha256()
    with _store_errors("read", uri, access):
        entries = sorted(_list(client, location), key=lambda entry: entry[0])
    for relative, entry in entries:
        digest.update(f"\0{relative}\0{entry.etag}\0{entry.size}".encode())
    return f"etags:{digest.hexdigest()}" if entries else ""
