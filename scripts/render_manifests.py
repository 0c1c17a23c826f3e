"""Write the manifests that come from code; a test keeps them equal."""

from pathlib import Path

import yaml

from kubeloop.kserve.runtime import build_serving_runtime

FOLDER = Path(__file__).parents[1] / "manifests" / "base"


def render_serving_runtime() -> str:
    """The ClusterServingRuntime as YAML."""
    header = "# Written by scripts/render_manifests.py from kserve/runtime.py.\n"
    return header + yaml.safe_dump(build_serving_runtime(), sort_keys=False)


if __name__ == "__main__":
    (FOLDER / "serving-runtime.yaml").write_text(render_serving_runtime())
