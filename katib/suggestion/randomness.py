"""Random numbers that depend on what is asked, not on what was asked before.

The generator of a suggestion is made of the seed and the suggestion's number, so that a service
that keeps nothing gives the same suggestions after a restart, and in batches of any size.
"""

from __future__ import annotations

import random

from kubeloop.katib.suggestion.messages import GetSuggestionsRequest


def suggestion_numbers(request: GetSuggestionsRequest) -> range:
    """The numbers, from 0, of the suggestions asked for among all of the experiment."""
    return range(
        request.total_request_number - request.current_request_number, request.total_request_number
    )


def make_generator(seed: int | None, number: int) -> random.Random:
    """The generator of one suggestion; without a seed, another one every time."""
    # Not for secrets: search has to be repeatable.
    return random.Random() if seed is None else random.Random(f"{seed}/{number}")  # noqa: S311
