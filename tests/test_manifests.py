import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeloop.katib.suggestion.deployment import build_suggestion_configs
from kubeloop.kserve.runtime import build_serving_runtime

Manifests = dict[str, dict[str, Any]]
ROOT = Path(__file__).parents[1]
COMPONENT_KINDS = {"pytorchjobs", "experiments", "inferenceservices"}


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    kubectl = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "manifests" / "base")],
        capture_output=True,
        text=True,
        check=True,
    )
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(kubectl.stdout)}


def test_base_builds_with_kubectl_and_holds_what_a_namespace_needs(
    manifests: Manifests,
) -> None:
    assert set(manifests) == {
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "Secret",
        "ClusterServingRuntime",
    }


def test_role_allows_creating_the_kinds_of_the_components_and_no_wildcard(
    manifests: Manifests,
) -> None:
    rules = manifests["Role"]["rules"]
    creatable = {r for rule in rules if "create" in rule["verbs"] for r in rule["resources"]}
    assert creatable == COMPONENT_KINDS
    assert not any("*" in entry for rule in rules for entry in rule["verbs"] + rule["resources"])
    assert not any("secrets" in rule["resources"] for rule in rules)


def test_role_binding_binds_the_role_to_the_service_account(
    manifests: Manifests,
) -> None:
    binding = manifests["RoleBinding"]
    assert binding["roleRef"]["name"] == manifests["Role"]["metadata"]["name"]
    subjects = {subject["name"] for subject in binding["subjects"]}
    assert manifests["ServiceAccount"]["metadata"]["name"] in subjects


def test_secret_template_names_every_variable_that_the_steps_read(
    manifests: Manifests,
) -> None:
    from kubeloop.datasets.stores import OBJECT_STORE_SECRET, OBJECT_STORE_VARIABLES

    secret = manifests["Secret"]
    assert secret["metadata"]["name"] == OBJECT_STORE_SECRET
    assert set(secret["stringData"]) == set(OBJECT_STORE_VARIABLES)


def test_serving_runtime_equals_what_the_code_builds() -> None:
    manifest = yaml.safe_load((ROOT / "manifests" / "base" / "serving-runtime.yaml").read_text())
    assert manifest == build_serving_runtime()


def test_suggestion_entries_equal_what_the_code_builds() -> None:
    entries = yaml.safe_load((ROOT / "manifests" / "katib" / "suggestions.yaml").read_text())
    assert entries == build_suggestion_configs()
