"""Search algorithms behind Katib's suggestion interface; hosted by the embedded plane.

Importing this package is cheap, and it never imports the Katib SDK, training code or, before the
first call, Optuna.
"""

from kubeloop.katib.suggestion import algorithms as _algorithms  # noqa: F401  # registers them
from kubeloop.katib.suggestion.service import (
    ALGORITHMS,
    InvalidSettingsError,
    SearchExhaustedError,
    SuggestionService,
    UnreachableError,
)

__all__ = [
    "ALGORITHMS",
    "InvalidSettingsError",
    "SearchExhaustedError",
    "SuggestionService",
    "UnreachableError",
]
