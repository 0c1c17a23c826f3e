"""Calls an endpoint: KServe's V1 and V2 REST protocols over plain HTTP.

Needs httpx alone, so that any notebook or script can predict. Errors say who is to act: the caller
(`InputError`), time (`TransientError`) or the endpoint's owner (`PermanentError`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from kubeloop.errors import InputError, PermanentError, TransientError

Instance = Any  # JSON of one instance: nested lists, {"b64": …}, or a text

_UNAVAILABLE = (429, 502, 503, 504)
_REFUSED = (400, 404, 413, 415, 422)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One classified instance."""

    label: str
    probabilities: Mapping[str, float]

    @property
    def probability(self) -> float:
        """Probability of `label`."""
        return self.probabilities.get(self.label, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A V2 tensor: `data` is flat, in row-major order."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: Sequence[float | int | bool | str]


class PredictionClient:
    """Client of one model of one endpoint; use it as a context manager.

    Args:
        url: The endpoint's URL, `status.url` of its InferenceService.
        model_name: The model, named like the InferenceService unless it says otherwise.
        timeout_seconds: Limit of one call.
        headers: Sent with every call, such as `Host` for a cluster's ingress.
        transport: Replaces the network, for tests.
    """

    def __init__(
        self,
        url: str,
        model_name: str,
        *,
        timeout_seconds: float = 30.0,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"Endpoint URL {url!r} must start with http:// or https://.")
        self._url = url.rstrip("/")
        self._model_name = model_name
        self._http = httpx.Client(
            timeout=timeout_seconds, headers=headers, transport=transport, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_ready(self) -> bool:
        """Whether the model answers that it is ready; False when nobody answers."""
        try:
            response = self._http.get(f"{self._url}/v2/models/{self._model_name}/ready")
        except httpx.HTTPError:
            return False
        return response.status_code == httpx.codes.OK

    def read_metadata(self) -> dict[str, Any]:
        """The model's V2 metadata: name, inputs, outputs."""
        return self._call("GET", f"/v2/models/{self._model_name}")

    def predict(self, instances: Sequence[Instance]) -> list[Any]:
        """V1: one prediction an instance, as the model renders it.

        Args:
            instances: For images nested lists of pixel values from 0 to 255 (height by width, or
                by width and channels), or `encode_image` of an image file; for texts strings.
        """
        path = f"/v1/models/{self._model_name}:predict"
        reply = self._call("POST", path, body={"instances": list(instances)})
        predictions = reply.get("predictions")
        if not isinstance(predictions, list) or len(predictions) != len(instances):
            raise PermanentError(
                f"Endpoint {self._url} answered {len(instances)} instances with {predictions!r}"
                " instead of as many predictions; it is no V1 model."
            )
        return predictions

    def classify(self, instances: Sequence[Instance]) -> list[Prediction]:
        """V1 on one of kubeloop's classifiers: label and probabilities of each instance."""
        try:
            return [
                Prediction(label=str(item["label"]), probabilities=dict(item["probabilities"]))
                for item in self.predict(instances)
            ]
        except (KeyError, TypeError) as error:
            raise PermanentError(
                f"Model {self._model_name!r} at {self._url} is no classifier of kubeloop's: its"
                " predictions have no label and probabilities; call predict."
            ) from error

    def infer(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """V2: the model's output tensors by name."""
        body = {
            "inputs": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "datatype": tensor.datatype,
                    "data": list(tensor.data),
                }
                for tensor in inputs
            ]
        }
        reply = self._call("POST", f"/v2/models/{self._model_name}/infer", body=body)
        return {
            item["name"]: Tensor(
                name=item["name"],
                shape=tuple(item["shape"]),
                datatype=item["datatype"],
                data=item["data"],
            )
            for item in reply.get("outputs", [])
        }

    def _call(self, method: str, path: str, *, body: object = None) -> dict[str, Any]:
        url = f"{self._url}{path}"
        try:
            response = self._http.request(method, url, json=body)
        except httpx.TimeoutException as error:
            raise TransientError(f"Endpoint {url} did not answer in time: {error}.") from error
        except httpx.HTTPError as error:
            raise TransientError(
                f"Endpoint {url} cannot be reached: {error}; is `kubeloop up` running?"
            ) from error
        if response.is_error:
            raise _translate(response, url)
        return _parse_json(response, url)


def encode_image(image: bytes | Path | str) -> dict[str, str]:
    """Render an image file, or its bytes, as a V1 instance."""
    content = image if isinstance(image, bytes) else Path(image).read_bytes()
    return {"b64": base64.b64encode(content).decode("ascii")}


def _parse_json(response: httpx.Response, url: str) -> dict[str, Any]:
    try:
        reply = response.json()
    except ValueError as error:
        raise PermanentError(
            f"Endpoint {url} answered no JSON: {response.text[:200]!r}."
        ) from error
    if not isinstance(reply, dict):
        raise PermanentError(f"Endpoint {url} answered {reply!r}, which is no JSON object.")
    return reply


def _translate(response: httpx.Response, url: str) -> Exception:
    cause = _read_cause(response)
    said = f"Endpoint {url} answered {response.status_code}: {cause}"
    if response.status_code in _UNAVAILABLE:
        return TransientError(said)
    if response.status_code in _REFUSED:
        return InputError(said)
    return PermanentError(said)


def _read_cause(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        return response.text[:500]
    if isinstance(body, dict):
        return str(body.get("error") or body.get("detail") or body)
    return str(body)
