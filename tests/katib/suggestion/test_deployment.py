"""A cluster's Katib learns our algorithms, and keeps what it had besides."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest
import yaml

from kubeloop.errors import InputError
from kubeloop.katib.suggestion import ALGORITHMS
from kubeloop.katib.suggestion.deployment import build_suggestion_configs, merge

PROGRAM = [sys.executable, "-m", "kubeloop.katib.suggestion.deployment"]


def build_config() -> dict[str, Any]:  # raw JSON
    return {
        "apiVersion": "config.kubeflow.org/v1beta1",
        "kind": "KatibConfig",
        "init": {"controller": {"webhookPort": 8443}},
        "runtime": {
            "metricsCollectors": [{"kind": "StdOut", "image": "collector"}],
            "suggestions": [
                {"algorithmName": "random", "image": "theirs"},
                {"algorithmName": "annealing", "image": "theirs"},
            ],
        },
    }


def test_every_algorithm_has_an_entry_that_starts_the_server() -> None:
    entries = build_suggestion_configs()

    assert [entry["algorithmName"] for entry in entries] == sorted(ALGORITHMS)
    for entry in entries:
        assert entry["image"].startswith("kubeloop/runtime:")
        interpreter, flag, module = entry["command"]
        assert (interpreter, flag) == ("python", "-m")
        assert callable(importlib.import_module(module).main)


def test_only_population_based_training_shares_a_volume() -> None:
    entries = build_suggestion_configs()

    assert [e["algorithmName"] for e in entries if "persistentVolumeClaimSpec" in e] == ["pbt"]


def test_merging_replaces_and_adds_and_keeps_the_rest() -> None:
    merged = merge(build_config(), build_suggestion_configs(["random", "asha"], image="ours"))

    images = {e["algorithmName"]: e["image"] for e in merged["runtime"]["suggestions"]}
    assert images == {"random": "ours", "annealing": "theirs", "asha": "ours"}
    assert merged["runtime"]["metricsCollectors"] == build_config()["runtime"]["metricsCollectors"]
    assert merged["init"] == build_config()["init"]


def test_a_text_of_the_cluster_becomes_one_with_our_algorithms() -> None:
    done = subprocess.run(
        [*PROGRAM, "--only", "asha"],
        input=yaml.safe_dump(build_config()),
        capture_output=True,
        text=True,
        check=True,
    )

    assert yaml.safe_load(done.stdout) == merge(build_config(), build_suggestion_configs(["asha"]))


def test_what_is_no_configuration_or_no_algorithm_is_refused() -> None:
    with pytest.raises(InputError, match="must be a KatibConfig"):
        merge({"kind": "ConfigMap"}, [])
    with pytest.raises(InputError, match="known are: asha"):
        build_suggestion_configs(["annealing"])
