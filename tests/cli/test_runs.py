from pathlib import Path
from typing import Any

import pytest

from kubeloop.cli.progress import find_cause
from kubeloop.cli.assignments import resolve_path


@pytest.mark.parametrize("given", ["photos/", "./photos", "../here/photos", "~/here/photos"])
def test_paths_in_parameters_become_absolute(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here" / "photos"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path(given) == str(folder)


@pytest.mark.parametrize(
    "given", ["photos", "s3://bucket/photos", "a/b", "/photos", 3, {"a": "./"}]
)
def test_what_may_be_no_path_stays(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_path(given) == given


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("Task 'a' failed: its Pod was deleted.", "Task 'a' failed: its Pod was deleted."),
        ("Its last lines:\n  events\nError: No model.\n", "No model."),
        ("Traceback\n  File\nValueError: bad", "ValueError: bad"),
    ],
)
def test_cause_is_the_last_line_of_an_error(error: str, cause: str) -> None:
    assert find_cause(error) == cause
