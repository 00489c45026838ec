"""Repeated reads of an object of the API, until a worker has finished it."""

import time
from collections.abc import Callable
from typing import Any, Final

import click

from segmentql.cli.api_client import ApiClient, Unavailable

MIN_POLL_SECONDS: Final = 0.1
MAX_POLL_SECONDS: Final = 1.0
MAX_OUTAGE_SECONDS: Final = 60
"""How long an API that does not respond is polled."""


def poll(
    client: ApiClient, document: str, object_id: str | None, is_done: Callable[[Any], bool]
) -> Any:
    """Read an object until it is done; return it.

    Args:
        client: The client.
        document: A query with one field and the variable `id`.
        object_id: The object's id.
        is_done: A function that is called with each state of the object.

    Raises:
        Unavailable: the API has not responded for `MAX_OUTAGE_SECONDS`.
        click.ClickException: the object was removed, or the API rejected the request.
    """
    pause, last_response_at = MIN_POLL_SECONDS, time.monotonic()
    while True:
        try:
            ((state,),) = [client.query(document, id=object_id).values()]
        except Unavailable:
            if time.monotonic() - last_response_at > MAX_OUTAGE_SECONDS:
                raise
        else:
            last_response_at = time.monotonic()
            if state is None:
                raise click.ClickException(f"{object_id} was removed.")
            if is_done(state):
                return state
        time.sleep(pause)
        pause = min(pause * 1.5, MAX_POLL_SECONDS)
