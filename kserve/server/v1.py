"""Routes of KServe's V1 protocol."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kubeloop.kserve.server.dataplane import DataPlane
from kubeloop.kserve.server.errors import InvalidRequestError, UnsupportedError
from kubeloop.kserve.server.http import BodyReader, json_response
from kubeloop.kserve.server.metrics import ServerMetrics


class V1Routes:
    """Handlers: read the body, call the data plane, render."""

    def __init__(self, plane: DataPlane, *, metrics: ServerMetrics, reader: BodyReader) -> None:
        self._plane = plane
        self._read = reader
        self._predict_metrics = metrics.of_path("v1/predict")

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes; predictions first, because they are looked up most."""
        model = "/v1/models/{model_name}"
        return [
            Route(f"{model}:predict", self.predict, methods=["POST"]),
            Route(f"{model}:explain", self.explain, methods=["POST"]),
            Route("/v1/models", self.list_models),
            Route(model, self.check_model),
        ]

    async def predict(self, request: Request) -> Response:
        """POST …:predict."""
        name = request.path_params["model_name"]
        self._plane.repository.find(name)
        instances = parse_instances(await self._read(request))
        predictions = await self._plane.predict(name, instances)
        self._predict_metrics.count()
        return json_response({"predictions": predictions})

    async def explain(self, request: Request) -> Response:
        """POST …:explain; there is no explainer in this server."""
        name = request.path_params["model_name"]
        self._plane.repository.find(name)
        raise UnsupportedError(f"Model {name!r} has no explainer.")

    async def list_models(self, _: Request) -> Response:
        """GET /v1/models."""
        return json_response({"models": self._plane.list_models()})

    async def check_model(self, request: Request) -> Response:
        """GET /v1/models/N."""
        name = request.path_params["model_name"]
        self._plane.check_model(name)
        return json_response({"name": name, "ready": True})


def parse_instances(body: bytes) -> list[Any]:
    """The `instances` (or `inputs`) of a V1 body: a list of any JSON.

    Raises:
        InvalidRequestError: No JSON, or no list of instances in it.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"Unrecognized request format: {error}") from error
    if isinstance(document, dict):
        key = "instances" if "instances" in document else "inputs"
        instances = document.get(key)
        if isinstance(instances, list):
            return instances
    raise InvalidRequestError('Expected "instances" to be a list')
