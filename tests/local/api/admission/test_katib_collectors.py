"""Metrics collectors before Katib's webhook."""

from __future__ import annotations

from typing import Any

import pytest

from kubeloop.testing.katib_admission import refuse
from kubeloop.testing.katib_lab import build_experiment


@pytest.mark.parametrize(
    ("collector", "refusal"),
    [
        ({"collector": {"kind": "Guess"}}, "invalid metrics collector kind: Guess"),
        (
            {
                "collector": {"kind": "File"},
                "source": {"fileSystemPath": {"kind": "File", "path": "rel"}},
            },
            "spec.metricsCollectorSpec.source.fileSystemPath.path: Required value: file path",
        ),
        (
            {
                "collector": {"kind": "File"},
                "source": {
                    "fileSystemPath": {"format": "JSON"},
                    "filter": {"metricsFormat": ["(a)(b)"]},
                },
            },
            "spec.metricsCollectorSpec.source.filter: Invalid value",
        ),
        (
            {
                "collector": {"kind": "TensorFlowEvent"},
                "source": {"fileSystemPath": {"format": "TEXT"}},
            },
            "spec.metricsCollectorSpec.source.fileSystemPath.format: Invalid value",
        ),
        (
            {"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": {"path": "m"}}},
            "spec.metricsCollectorSpec.source.httpGet.path: Invalid value",
        ),
        (
            {"collector": {"kind": "PrometheusMetric"}, "source": {"httpGet": {"port": "x"}}},
            "spec.metricsCollectorSpec.source.httpGet.port: Invalid value",
        ),
        (
            {"collector": {"kind": "Custom"}},
            "spec.metricsCollectorSpec.collector.customCollector: Required value",
        ),
        (
            {"source": {"filter": {"metricsFormat": ["a=(b)"]}}},
            'metricsFormat: Invalid value: "a=(b)": two top subexpressions are required',
        ),
        (
            {"source": {"filter": {"metricsFormat": ["(a"]}}},
            'metricsFormat: Invalid value: "(a": invalid filter: ',
        ),
        (
            {"source": {"filter": {"metricsFormat": [r"(\w+)=(\d)\1"]}}},
            "invalid filter: error parsing regexp: invalid escape sequence",
        ),
        (
            {"collector": {"kind": "PrometheusMetric"}},
            "failed to find metrics collector config for kind: PrometheusMetric",
        ),
        ({"collector": {"kind": "None"}}, "invalid metrics collector kind: None"),
    ],
)
def test_a_wrong_collector_is_refused(collector: dict[str, Any], refusal: str) -> None:
    assert refusal in refuse(build_experiment(metricsCollectorSpec=collector))
