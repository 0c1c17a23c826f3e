"""Routes of the V2 (Open Inference) protocol."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kubeloop.kserve.server.dataplane import EXTENSIONS, SERVER_NAME, DataPlane
from kubeloop.kserve.server.errors import (
    InvalidRequestError,
    NotReadyError,
    UnsupportedError,
)
from kubeloop.kserve.server.http import BodyReader, json_response
from kubeloop.kserve.server.metrics import ServerMetrics
from kubeloop.kserve.server.v2_messages import (
    LENGTH_HEADER,
    parse_infer_request,
    render_infer_reply,
)
from kubeloop.training.package import TensorSpec


class V2Routes:
    """Handlers: read the body, call the data plane, render."""

    def __init__(self, plane: DataPlane, *, metrics: ServerMetrics, reader: BodyReader) -> None:
        self._plane = plane
        self._read = reader
        self._infer_metrics = metrics.of_path("v2/infer")

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes; inference first, because it is looked up most."""
        model, stored = "/v2/models/{model_name}", "/v2/repository/models/{model_name}"
        versions = f"{model}/versions/{{version:path}}"
        return [
            Route(f"{model}/infer", self.infer, methods=["POST"]),
            Route(f"{model}/ready", self.check_model),
            Route("/v2/health/live", self.check_live),
            Route("/v2/health/ready", self.check_ready),
            Route("/v2", self.describe_server),
            Route("/v2/models", self.list_models),
            Route(model, self.describe_model),
            Route(versions, self.refuse_version, methods=["GET", "POST"]),
            Route(f"{stored}/load", self.load, methods=["POST"]),
            Route(f"{stored}/unload", self.unload, methods=["POST"]),
        ]

    async def infer(self, request: Request) -> Response:
        """POST …/infer, JSON or the binary form."""
        name = request.path_params["model_name"]
        self._plane.repository.find(name)
        json_length = _read_json_length(request)
        message = parse_infer_request(await self._read(request), json_length=json_length)
        outputs = await self._plane.infer(name, message.tensors, outputs=message.outputs)
        body, length = render_infer_reply(message, name, outputs)
        self._infer_metrics.count()
        if length is None:
            return Response(body, media_type="application/json")
        headers = {LENGTH_HEADER: str(length)}
        return Response(body, media_type="application/octet-stream", headers=headers)

    async def check_model(self, request: Request) -> Response:
        """GET …/ready."""
        name = request.path_params["model_name"]
        self._plane.check_model(name)
        return json_response({"name": name, "ready": True})

    async def check_live(self, _: Request) -> Response:
        """GET /v2/health/live."""
        return json_response({"live": True})

    async def check_ready(self, _: Request) -> Response:
        """GET /v2/health/ready."""
        if not self._plane.is_ready:
            raise NotReadyError("Server is not ready.")
        return json_response({"ready": True})

    async def describe_server(self, _: Request) -> Response:
        """GET /v2."""
        return json_response(
            {"name": SERVER_NAME, "version": self._plane.version, "extensions": list(EXTENSIONS)}
        )

    async def list_models(self, _: Request) -> Response:
        """GET /v2/models."""
        return json_response({"models": self._plane.list_models()})

    async def describe_model(self, request: Request) -> Response:
        """GET /v2/models/N."""
        metadata = self._plane.describe_model(request.path_params["model_name"])
        return json_response(
            {
                "name": metadata.name,
                "versions": [metadata.version],
                "platform": metadata.platform,
                "inputs": [_render_spec(spec) for spec in metadata.inputs],
                "outputs": [_render_spec(spec) for spec in metadata.outputs],
            }
        )

    async def refuse_version(self, _: Request) -> Response:
        """Any …/versions/V path."""
        raise UnsupportedError("Model versioning not supported yet.")

    async def load(self, request: Request) -> Response:
        """POST /v2/repository/models/N/load."""
        name = request.path_params["model_name"]
        await self._plane.repository.reload(name)
        return json_response({"name": name, "load": True})

    async def unload(self, request: Request) -> Response:
        """POST /v2/repository/models/N/unload."""
        name = request.path_params["model_name"]
        await self._plane.repository.unload(name)
        return json_response({"name": name, "unload": True})


def _read_json_length(request: Request) -> int | None:
    text = request.headers.get(LENGTH_HEADER)
    if text is None:
        if request.headers.get("content-type", "").startswith("application/octet-stream"):
            raise InvalidRequestError(
                f"received byte inputs, but the '{LENGTH_HEADER}' header is missing."
            )
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequestError(f"{LENGTH_HEADER} must be a length in bytes, not {text!r}.")
    return int(text)


def _render_spec(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
