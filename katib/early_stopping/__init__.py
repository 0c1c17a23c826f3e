"""Early stopping behind Katib's interface; hosted by the embedded plane.

Importing this package is cheap, and it never imports the Katib SDK or training code.
"""

from kubeloop.katib.early_stopping import medianstop as _medianstop  # noqa: F401  # registers it
from kubeloop.katib.early_stopping.service import (
    EARLY_STOPPING,
    EarlyStoppingService,
    GetEarlyStoppingRulesRequest,
    ReadValues,
)

__all__ = [
    "EARLY_STOPPING",
    "EarlyStoppingService",
    "GetEarlyStoppingRulesRequest",
    "ReadValues",
]
