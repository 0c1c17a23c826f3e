"""Queries to a real PostgreSQL, where its programs are installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from kubeloop.datasets import Commit
from kubeloop.errors import InputError

Ingest = Callable[..., Commit]
_PROGRAMS = next(
    (
        path.parent
        for path in [
            Path(shutil.which("initdb") or "/"),
            *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        ]
        if path.name == "initdb"
    ),
    None,
)
pytestmark = pytest.mark.skipif(_PROGRAMS is None, reason="PostgreSQL is not installed")


def _unprivileged() -> dict[str, str | int]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    assert _PROGRAMS is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)
        data = f"{folder}/data"
        as_user = _unprivileged()
        subprocess.run(
            [_PROGRAMS / "initdb", "-D", data, "-U", "me", "-A", "trust", "-N"],
            check=True, capture_output=True, cwd=folder, **as_user,  # type: ignore[call-overload]
        )  # fmt: skip
        options = f"-p {port} -h 127.0.0.1 -k {folder} -F"
        control = [_PROGRAMS / "pg_ctl", "-D", data, "-w", "-l", f"{folder}/log"]
        subprocess.run(
            [*control, "-o", options, "start"], check=True, cwd=folder, stdout=subprocess.DEVNULL,
            **as_user,  # type: ignore[call-overload]
        )  # fmt: skip
        try:
            yield f"127.0.0.1:{port}/postgres"
        finally:
            subprocess.run(
                [*control, "-m", "immediate", "stop"], check=True, cwd=folder,
                stdout=subprocess.DEVNULL, **as_user,  # type: ignore[call-overload]
            )  # fmt: skip


@pytest.fixture(scope="module")
def messages(database: str) -> str:
    engine = create_engine(f"postgresql+pg8000://me@{database}")
    with engine.begin() as connection:
        connection.execute(text("create table messages (id int, body text, intent text)"))
        connection.execute(
            text(
                "insert into messages select n, 'text ' || n, chr(97 + n % 2)"
                " from generate_series(1, 20000) n"
            )
        )
    engine.dispose()
    return database


def test_a_query_is_the_commit_of_its_rows(
    messages: str, tmp_path: Path, ingest_text: Ingest
) -> None:
    rows = "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(1, 20_001))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    query = "SELECT body AS text, intent AS label FROM messages ORDER BY id"

    made = ingest_text(f"postgresql://me:word@{messages}?query={query}")

    assert made.version_hash == ingest_text(tmp_path / "rows.csv").version_hash
    assert made.source_uri.startswith(f"postgresql://me:***@{messages}?query=SELECT")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT body FROM nothing", "relation .*nothing.* does not exist"),
        ("DELETE FROM messages RETURNING body, intent", "read-only transaction|syntax"),
    ],
)
def test_a_query_that_fails_or_writes_is_refused(
    messages: str, ingest_text: Ingest, query: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ingest_text(f"postgresql://me@{messages}?query={query}")
