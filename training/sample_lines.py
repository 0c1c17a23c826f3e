"""A line of metrics as each training program prints it.

Whoever waits for a metric can check its name here, before a job runs for an hour and is found to
have printed another one.
"""

from __future__ import annotations

from kubeloop.registry import Registry

SAMPLE_LINES: Registry[str] = Registry("training program")
"""Training program → a line that it prints after an epoch."""

_EPOCH = (
    "epoch=1 train_loss=0.693147 val_loss=0.412345 val_accuracy=0.912345{others}"
    " examples_per_second=1250.0 eta_seconds=3"
)
SAMPLE_LINES.register("image", _EPOCH.format(others=""))
SAMPLE_LINES.register(
    "text",
    _EPOCH.format(others=" val_in_scope_accuracy=0.934567 val_out_of_scope_recall=0.823456"),
)
