import sys

import pytest

from kubeloop.errors import MissingDependencyError
from kubeloop.optional_imports import import_from_extra


def test_a_missing_package_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubeflow.katib", None)

    with (
        pytest.raises(MissingDependencyError) as e,
        import_from_extra("katib", why="Experiments need Katib's SDK"),
    ):
        import kubeflow.katib  # noqa: F401

    assert str(e.value) == "Experiments need Katib's SDK: pip install 'kubeloop[katib]'."
    assert isinstance(e.value.__cause__, ImportError)


def test_what_is_installed_is_imported() -> None:
    with import_from_extra("katib", why="Experiments need Katib's SDK"):
        import json

    assert json.loads("1") == 1
