"""The official clients keep connections open until they are collected; tests close them."""

from __future__ import annotations

from typing import Any


def close_connections(*apis: Any) -> None:  # Any: the Kubernetes client's APIs have no types
    """Close the connections and threads of APIs such as `TrainingClient().core_api`.

    NB: it waits for requests under way; beside a server in an event loop, call it in a thread.
    """
    for api in apis:
        pools = api.api_client.rest_client.pool_manager.pools
        for key in list(pools.keys()):
            pools[key].close()
        api.api_client.close()
