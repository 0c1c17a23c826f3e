"""Prometheus metrics of the model server, under KServe's names where KServe has one."""

from __future__ import annotations

from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServerMetrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._preprocess = self._histogram(
            "request_preprocess_seconds", "pre-process request latency"
        )
        self._predict = self._histogram("request_predict_seconds", "predict request latency")
        self._postprocess = self._histogram(
            "request_postprocess_seconds", "post-process request latency"
        )
        self._batch = self._histogram(
            "kubeloop_batch_requests", "requests computed together", _ROWS
        )
        self._ready = Gauge(
            "kubeloop_model_ready", "1 while loaded", ["model_name"], registry=self._registry
        )
        self._requests = Counter(
            "kubeloop_requests", "requests by outcome", ["path", "code"], registry=self._registry
        )

    def of_model(self, name: str) -> ModelMetrics:
        """The metrics of one model, looked up once."""
        return ModelMetrics(
            preprocess=self._preprocess.labels(name),
            predict=self._predict.labels(name),
            postprocess=self._postprocess.labels(name),
            batch=self._batch.labels(name),
            ready=self._ready.labels(name),
        )

    def of_path(self, path: str) -> PathMetrics:
        """The request counters of one route, looked up once for each status code."""
        return PathMetrics(self._requests, path)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, text, ["model_name"], buckets=buckets, registry=self._registry)


class ModelMetrics:
    """Metrics of one model."""

    __slots__ = ("_batch", "_predict", "postprocess", "preprocess", "ready")

    def __init__(
        self,
        *,
        preprocess: Histogram,
        predict: Histogram,
        postprocess: Histogram,
        batch: Histogram,
        ready: Gauge,
    ) -> None:
        self.preprocess = preprocess
        self.postprocess = postprocess
        self.ready = ready
        self._predict = predict
        self._batch = batch

    def observe_batch(self, num_requests: int, *, seconds: float) -> None:
        """Count requests that were computed together."""
        self._batch.observe(num_requests)
        for _ in range(num_requests):
            self._predict.observe(seconds)


class PathMetrics:
    """Counters of one route."""

    __slots__ = ("_by_status", "_counter", "_path")

    def __init__(self, counter: Counter, path: str) -> None:
        self._counter = counter
        self._path = path
        self._by_status: dict[int, Counter] = {}

    def count(self, status: int = HTTPStatus.OK) -> None:
        """Count one request that was answered with `status`."""
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = self._counter.labels(self._path, str(int(status)))
        counter.inc()
