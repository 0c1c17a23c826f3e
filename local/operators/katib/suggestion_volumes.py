"""The volume of a suggestion, which its algorithm and its trials share.

Katib makes one for resume policy FromVolume. Population based training keeps there what its trials
leave: each finds in its own folder what its parent left.

Source: katib v0.19 `suggestion/composer/composer.go` (DesiredVolume).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from kubeloop.errors import AlreadyExistsError
from kubeloop.katib.suggestion.messages import ParameterAssignments
from kubeloop.katib.suggestion.pbt import prepare_checkpoints
from kubeloop.local.client import Client, Manifest
from kubeloop.local.kubelet.pod_files import PodFiles
from kubeloop.local.operators.controller import build_owner_reference
from kubeloop.local.operators.katib.terms import FROM_VOLUME

_SIZE = "1Gi"


def name_volume(suggestion: Manifest) -> str:
    """The name of a suggestion's claim."""
    return f"{suggestion['metadata']['name']}-{suggestion['spec']['algorithm']['algorithmName']}"


class SuggestionVolumes:
    """Makes the volumes and fills them."""

    def __init__(self, client: Client, *, files: PodFiles) -> None:
        self._client = client
        self._files = files

    async def create(self, suggestion: Manifest) -> None:
        """Have the claim there, if the suggestion needs one."""
        if suggestion["spec"].get("resumePolicy") != FROM_VOLUME:
            return
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name_volume(suggestion),
                "namespace": suggestion["metadata"]["namespace"],
                "ownerReferences": [build_owner_reference(suggestion)],
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": _SIZE}},
            },
        }
        with contextlib.suppress(AlreadyExistsError):
            await self._client.create(claim)

    async def fill(self, suggestion: Manifest, assignments: Sequence[ParameterAssignments]) -> None:
        """Make the folders of new trials that go on from others."""
        if all(not assignment.labels for assignment in assignments):
            return
        metadata = suggestion["metadata"]
        root = self._files.claim(name_volume(suggestion), namespace=metadata["namespace"])
        await asyncio.to_thread(prepare_checkpoints, root, metadata["name"], assignments)
