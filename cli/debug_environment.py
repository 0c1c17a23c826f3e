"""The variables that a task's container would have, for its function in this process."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator, Mapping

from kubeloop.cli.options import Session, errors


@contextlib.contextmanager
def environment(session: Session, pod: str) -> Iterator[None]:
    """Give this process the variables that the task's container would have."""
    before = dict(os.environ)
    os.environ.update(
        {
            **(read_variables(session, pod) if pod else {}),
            "KUBECONFIG": str(session.state.kubeconfig),
            "_KFP_RUNTIME": "true",
        }
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def read_variables(session: Session, pod: str) -> dict[str, str]:
    """The variables that a Pod's container sets, those from secrets and config maps included."""
    from kubernetes.client import ApiException, CoreV1Api

    core = CoreV1Api(session.kubernetes)
    try:
        container = core.read_namespaced_pod(pod, session.namespace).spec.containers[0]
    except ApiException:
        errors.print(f"[yellow]Note:[/yellow] pod {pod} is gone; its variables are not set here.")
        return {}
    found: dict[str, str] = {}
    for entry in container.env or ():
        source = entry.value_from
        if source is None:
            found[entry.name] = entry.value or ""
        elif reference := source.secret_key_ref or source.config_map_key_ref:
            is_secret = source.secret_key_ref is not None
            read = core.read_namespaced_secret if is_secret else core.read_namespaced_config_map
            with contextlib.suppress(ApiException):
                data: Mapping[str, str] = read(reference.name, session.namespace).data or {}
                if reference.key in data:
                    text = data[reference.key]
                    found[entry.name] = base64.b64decode(text).decode() if is_secret else text
    return found
