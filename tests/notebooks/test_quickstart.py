"""The quickstart runs from top to bottom with the plain SDKs, as in Jupyter."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import nbclient
import nbformat
import pytest

from kubeloop.cli.plane import running
from kubeloop.local.state import StateFolder

pytestmark = [pytest.mark.loop, pytest.mark.pinned]
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = StateFolder(tmp_path_factory.mktemp("quickstart") / "state")
    with running(folder, (0, 0, 0)):
        yield folder.kubeconfig


def test_quickstart_runs_the_loop_through_the_sdks(
    kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("QUICKSTART_EPOCHS", "4")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=dict(os.environ))
    states = ast.literal_eval(_result(notebook, "task_details"))
    assert {states[name] for name in ("train-model", "deploy-model")} == {"SUCCEEDED"}
    assert "learning_rate" in _result(notebook, "best.parameter_assignments")
    assert "val_accuracy=" in _result(notebook, "get_job_logs")
    answers = ast.literal_eval(_result(notebook, "classify"))
    assert sum(truth == predicted for truth, predicted in answers) >= 6


def test_quickstart_is_stored_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not cell.get("outputs") for cell in cells)


def _result(notebook: nbformat.NotebookNode, word: str) -> str:
    """What the cell whose code holds `word` printed or returned."""
    cell = next(c for c in notebook.cells if c.cell_type == "code" and word in c.source)
    parts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell.outputs]
    return "\n".join(parts)
