"""The settings of early stopping algorithms, checked before submission and by the service alike.

Source: katib v0.19 `pkg/earlystopping/v1beta1/medianstop/service.py`.
"""

from __future__ import annotations

from kubeloop.katib.suggestion.messages import EarlyStoppingSpec
from kubeloop.katib.suggestion.service import InvalidSettingsError
from kubeloop.katib.suggestion.settings import Setting, Settings, count, parse_settings

MEDIAN_STOP = "medianstop"
"""Stops trials whose objective is worse than the average of earlier ones at the same step."""

MIN_TRIALS_REQUIRED = count("min_trials_required", least=1, default=3)
START_STEP = count("start_step", least=1, default=4)

EARLY_STOPPING: dict[str, tuple[Setting, ...]] = {
    MEDIAN_STOP: (MIN_TRIALS_REQUIRED, START_STEP),
}
"""Katib's early stopping algorithms and their settings."""


def parse_early_stopping(spec: EarlyStoppingSpec) -> Settings:
    """Read the settings of an early stopping algorithm.

    Raises:
        InvalidSettingsError: There is no such algorithm, or a setting cannot be used.
    """
    name = spec.algorithm_name
    if name not in EARLY_STOPPING:
        raise InvalidSettingsError(
            f"unknown early stopping algorithm {name}; known are: {', '.join(EARLY_STOPPING)}"
        )
    return parse_settings(spec, EARLY_STOPPING[name])
