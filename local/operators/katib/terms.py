"""Names that Katib's controllers, webhooks and clients agree on.

Source: katib v0.19 `controller.v1beta1/consts/const.go`.
"""

from __future__ import annotations

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
TRIAL_LABEL = "katib.kubeflow.org/trial"
INJECTION_LABEL = "katib.kubeflow.org/metrics-collector-injection"
TRIAL_NAME_VARIABLE = "KATIB_TRIAL_NAME"

EXPERIMENT_FINALIZER = "update-prometheus-metrics"
TRIAL_FINALIZER = "clean-metrics-in-db"

STDOUT = "StdOut"
FILE = "File"
TENSORFLOW_EVENT = "TensorFlowEvent"
CUSTOM = "Custom"
PUSH = "Push"
NEVER = "Never"
LONG_RUNNING = "LongRunning"
FROM_VOLUME = "FromVolume"

CREATED = "Created"
RUNNING = "Running"
RESTARTING = "Restarting"
SUCCEEDED = "Succeeded"
FAILED = "Failed"
KILLED = "Killed"
EARLY_STOPPED = "EarlyStopped"
METRICS_UNAVAILABLE = "MetricsUnavailable"
DEPLOYMENT_READY = "DeploymentReady"

END_REACHED = "SuggestionEndReached"
"""Reason of a suggestion that succeeded because nothing new is left to suggest."""
