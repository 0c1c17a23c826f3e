from pathlib import Path

import pytest
import yaml

from kubeloop.cli.main import run

_PIPELINE = {
    "pipelineInfo": {"name": "p"},
    "schemaVersion": "2.1.0",
    "deploymentSpec": {"executors": {"exec": {"container": {"image": "i"}}}},
    "components": {"comp": {"executorLabel": "exec"}},
    "root": {
        "inputDefinitions": {"parameters": {"text": {"parameterType": "STRING"}}},
        "dag": {"tasks": {"t": {"componentRef": {"name": "comp"}}}},
    },
}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["-p", "text=x"], "cron expression or an interval"),
        (["-p", "text=x", "--cron", "@daily", "--every", "1h"], "and not both"),
        (["-p", "text=x", "--every", "often"], "'often' is no interval"),
        (["-p", "text=x", "--cron", "@daily", "--start", "noon"], "'noon'"),
        (["--every", "1h"], "'text'"),
    ],
)
def test_what_is_wrong_is_said_before_the_api_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], fault: str
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(_PIPELINE))
    code = run(["schedules", "create", str(file), *arguments, "--state", str(tmp_path / "state")])
    assert (code, fault in capsys.readouterr().err) == (2, True)


def test_schedules_are_looked_for_where_a_plane_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["schedules", "--state", str(tmp_path)]) == 1
    assert "kubeloop up" in capsys.readouterr().err
