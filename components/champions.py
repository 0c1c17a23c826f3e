"""Which model `find_champion` finds: the package that an endpoint serves."""

from __future__ import annotations

from kubeloop.errors import InputError
from kubeloop.kserve.endpoints import Endpoint


def find_model(endpoint: Endpoint | None) -> str:
    """Return the URI of the model that an endpoint serves; empty where there is no endpoint.

    Raises:
        InputError: It serves something else, which a new model would replace without being compared
            with it.
    """
    if endpoint is None:
        return ""
    if not endpoint.model_uri:
        raise InputError(
            f"Endpoint {endpoint.name!r} serves a program of its own and no model by URI, so that"
            " none can be compared with it; deploy under another name, or delete it first."
        )
    return endpoint.model_uri
