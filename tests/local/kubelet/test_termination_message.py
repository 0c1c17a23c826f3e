"""What a container that fails leaves behind in its status."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeloop.testing.kubelet import Cluster, container_status, play


@pytest.mark.parametrize(
    ("policy", "code", "message"),
    [
        ("FallbackToLogsOnError", 1, "one\ntwo"),
        ("FallbackToLogsOnError", 0, None),
        ("File", 1, None),
    ],
)
def test_end_of_the_log_is_the_message_of_a_failure_that_asks_for_it(
    tmp_path: Path, policy: str, code: int, message: str | None
) -> None:
    async def scenario(cluster: Cluster) -> None:
        container = {
            "name": "main",
            "image": "python:3.11",
            "command": ["sh", "-c", f"echo one; echo two; exit {code}"],
            "terminationMessagePolicy": policy,
        }
        pod = await cluster.run("bad", containers=[container])

        assert container_status(pod)["state"]["terminated"].get("message") == message

    play(tmp_path, scenario)
