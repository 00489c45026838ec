"""Counts joins and leaves as history records them, whoever brought them about.

The trigger on `history` tells its connection, in a message of the DEBUG level, how many entries it
took (see migration 0006). So nothing is asked, and what a rollout or a deletion does on the way
is counted like all else. They count once their transaction commits.
"""

import re
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

from segmentql import metrics

_MESSAGE: Final = re.compile(r"segmentql recorded (JOINED|LEFT) ([A-Z_]+) ([0-9]+)")
_KEY: Final = "segmentql.recorded"


def count_history(engine: Engine) -> None:
    """Count what connections of this engine record; see `connections.session_settings`."""
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "commit", _on_commit)
    event.listen(engine, "rollback", _on_rollback)


def _on_connect(connection: Any, record: Any) -> None:
    entries: list[tuple[str, str, int]] = []
    record.info[_KEY] = entries
    connection.driver_connection.add_log_listener(partial(_on_message, entries))


def _on_message(entries: list[tuple[str, str, int]], _connection: object, message: Any) -> None:
    found = _MESSAGE.fullmatch(message.message)
    if found:
        entries.append((found[1], found[2], int(found[3])))


def _on_commit(connection: Connection) -> None:
    entries = connection.info[_KEY]
    for operation, cause, number in entries:
        counter = metrics.JOINS if operation == "JOINED" else metrics.LEAVES
        counter.labels(cause).inc(number)
    entries.clear()


def _on_rollback(connection: Connection) -> None:
    if not connection.invalidated:  # else it is gone, with all it told
        connection.info[_KEY].clear()
