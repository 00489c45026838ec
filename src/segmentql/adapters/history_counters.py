"""Counts the joins and leaves that this process records in history, by cause.

The trigger on `history` (its function is `report_history_counts()`, see migrations 0006 and 0007)
reports the number of its entries in a DEBUG message to its connection. So counting needs no
statement and includes every cause, such as rollouts and deletions. The entries are counted when
their transaction commits.
"""

import re
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

from segmentql import metrics

_MESSAGE: Final = re.compile(r"segmentql recorded (JOINED|LEFT) ([A-Z_]+) ([0-9]+)")
_KEY: Final = "segmentql.history_entries"


class HistoryCommits:
    """Counts the commits that record joins or leaves, just before they are visible."""

    def __init__(self) -> None:
        self.count = 0


def count_history(engine: Engine, commits: HistoryCommits) -> None:
    """Count the history entries of an engine's connections, see `connections.session_settings`.

    Args:
        engine: The engine.
        commits: The counter of its commits that record entries.
    """
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "commit", partial(_on_commit, commits))
    event.listen(engine, "rollback", _on_rollback)


def _on_connect(connection: Any, record: Any) -> None:
    entries: list[tuple[str, str, int]] = []
    record.info[_KEY] = entries
    connection.driver_connection.add_log_listener(partial(_on_message, entries))


def _on_message(entries: list[tuple[str, str, int]], _connection: object, message: Any) -> None:
    match = _MESSAGE.fullmatch(message.message)
    if match:
        entries.append((match[1], match[2], int(match[3])))


def _on_commit(commits: HistoryCommits, connection: Connection) -> None:
    entries = connection.info[_KEY]
    if entries:
        commits.count += 1
    for operation, cause, number in entries:
        counter = metrics.JOINS if operation == "JOINED" else metrics.LEAVES
        counter.labels(cause).inc(number)
    entries.clear()


def _on_rollback(connection: Connection) -> None:
    if not connection.invalidated:  # an invalidated connection has no `info`
        connection.info[_KEY].clear()
