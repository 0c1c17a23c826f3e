"""Says which extra to install where a package of it is missing; the base install has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kubeloop.errors import MissingDependencyError


@contextmanager
def import_from_extra(extra: str, *, why: str) -> Iterator[None]:
    """Import packages of an extra inside of this context.

    Args:
        extra: Its name, such as `katib`.
        why: The start of the message: who needs what, such as "Experiments need Katib's SDK".

    Raises:
        MissingDependencyError: One cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(f"{why}: pip install 'kubeloop[{extra}]'.") from error
