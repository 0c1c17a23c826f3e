r"""Makes a cluster's Katib run our algorithms: the entries of its configuration, and their merge.

Katib reads which image runs an algorithm from its ConfigMap `katib-config`, a text that no patch
reaches into. So this program puts the entries into the text that a cluster has:

    kubectl -n kubeflow get configmap katib-config -o 'jsonpath={.data.katib-config\.yaml}' \
      | python -m kubeloop.katib.suggestion.deployment --only asha > katib-config.yaml
    kubectl -n kubeflow create configmap katib-config --from-file katib-config.yaml \
      --dry-run=client -o yaml | kubectl apply -f -

Entries of algorithms that the cluster has already are replaced, except for what `--only` leaves
out. `manifests/katib/suggestions.yaml` holds all entries, for those who edit the text by hand.

Source: katib v0.19 `pkg/apis/config/v1beta1/types.go` (SuggestionConfig).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from kubeloop import __version__
from kubeloop.errors import InputError
from kubeloop.katib.suggestion import ALGORITHMS

Manifest = dict[str, Any]  # raw JSON

IMAGE = f"kubeloop/runtime:{__version__}"
COMMAND = ("python", "-m", "kubeloop.katib.suggestion.server")

_RESOURCES = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
_SHARED_VOLUME = {
    "accessModes": ["ReadWriteMany"],
    "resources": {"requests": {"storage": "5Gi"}},
}


def build_suggestion_configs(
    algorithms: Iterable[str] = (), *, image: str = IMAGE
) -> list[Manifest]:
    """The entries of `runtime.suggestions`.

    Args:
        algorithms: Which; by default every algorithm there is.
        image: Image that carries kubeloop with its `katib` and `search` extras.

    Raises:
        InputError: There is no such algorithm.
    """
    names = list(algorithms) or sorted(ALGORITHMS)
    for name in names:
        ALGORITHMS[name]
    return [_build_config(name, image) for name in names]


def merge(config: Manifest, entries: Iterable[Manifest]) -> Manifest:
    """Katib's configuration with these entries in place of those of the same algorithms.

    Raises:
        InputError: It is no configuration of Katib.
    """
    if not isinstance(config, dict) or config.get("kind") != "KatibConfig":
        raise InputError("The input must be a KatibConfig, the text of ConfigMap katib-config.")
    new = {entry["algorithmName"]: entry for entry in entries}
    runtime = config.get("runtime") or {}
    old = [new.pop(entry["algorithmName"], entry) for entry in runtime.get("suggestions") or ()]
    return {**config, "runtime": {**runtime, "suggestions": [*old, *new.values()]}}


def _build_config(name: str, image: str) -> Manifest:
    config: Manifest = {
        "algorithmName": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(COMMAND),
        "resources": _RESOURCES,
    }
    if name == "pbt":
        # Trials mount the volume too, and it belongs to root.
        config["securityContext"] = {"runAsUser": 0}
        config["persistentVolumeClaimSpec"] = _SHARED_VOLUME
    return config


def main(arguments: Sequence[str] | None = None) -> None:
    """Read a configuration from stdin, and write it with our algorithms."""
    import yaml

    parser = argparse.ArgumentParser(description="Put kubeloop's algorithms into a KatibConfig.")
    parser.add_argument("--only", nargs="+", default=[], metavar="ALGORITHM")
    parser.add_argument("--image", default=IMAGE)
    options = parser.parse_args(arguments)
    try:
        entries = build_suggestion_configs(options.only, image=options.image)
        merged = merge(yaml.safe_load(sys.stdin), entries)
    except (InputError, yaml.YAMLError) as error:
        parser.error(str(error))
    # Through JSON, as YAML would write what entries share once and refer to it.
    sys.stdout.write(yaml.safe_dump(json.loads(json.dumps(merged)), sort_keys=False))


if __name__ == "__main__":
    main()
