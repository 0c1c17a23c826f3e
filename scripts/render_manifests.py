"""Write the manifests that come from code; a test keeps them equal."""

import json
from pathlib import Path

import yaml

from kubeloop.katib.suggestion.deployment import build_suggestion_configs
from kubeloop.kserve.runtime import build_serving_runtime

FOLDER = Path(__file__).parents[1] / "manifests"


def render_serving_runtime() -> str:
    """The ClusterServingRuntime as YAML."""
    header = "# Written by scripts/render_manifests.py from kserve/runtime.py.\n"
    return header + yaml.safe_dump(build_serving_runtime(), sort_keys=False)


def render_suggestions() -> str:
    """The entries of Katib's configuration as YAML."""
    header = (
        "# Entries of runtime.suggestions of ConfigMap katib-config, which the module merges in.\n"
        "# Written by scripts/render_manifests.py from katib/suggestion/deployment.py.\n"
    )
    # Through JSON, as YAML would write what entries share once and refer to it.
    entries = json.loads(json.dumps(build_suggestion_configs()))
    return header + yaml.safe_dump(entries, sort_keys=False)


if __name__ == "__main__":
    (FOLDER / "base" / "serving-runtime.yaml").write_text(render_serving_runtime())
    (FOLDER / "katib" / "suggestions.yaml").write_text(render_suggestions())
