from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kubeloop.local.kubelet.kubelet import KubeletConfig
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.kubelet import start_cluster

pytestmark = pytest.mark.pinned
LAYERS = WarmConfig().layers
CODE = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def test_programs_of_pods_find_what_every_layer_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the modules read from the environment: a pod that sets nothing is run warm."""
    # Set when training programs are imported, by other tests in this process too.
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)

    async def scenario() -> list[str]:
        async with start_cluster(tmp_path, config=KubeletConfig()) as cluster:
            await cluster.kubelet.processes.wait_until_warm(depth=len(LAYERS))
            await cluster.run("asks", "python", "-c", CODE)
            loaded: list[str] = json.loads(await cluster.log("asks"))
            return loaded

    loaded = asyncio.run(scenario())

    assert [name for layer in LAYERS for name in layer if name not in loaded] == []
