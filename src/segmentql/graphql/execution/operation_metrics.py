"""The metrics of operations: their number and duration, by name and outcome."""

from typing import Final

from prometheus_client import Counter, Histogram

from graphql import FieldNode, OperationDefinitionNode
from segmentql import metrics

MAX_OPERATION_NAMES: Final = 200
"""The maximum number of operation names in metrics. Clients choose the names, so they need a limit.
"""

MAX_NAME_CHARACTERS: Final = 100
"""The maximum length of an operation name in metrics."""


class OperationMetrics:
    """The metrics of the operations of one process."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._counters: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def label(self, operation: OperationDefinitionNode) -> str:
        """Return the operation's label in metrics and logs: its name, or else its first field.

        After `MAX_OPERATION_NAMES` names, further names have the label "other".
        """
        if operation.name:
            name = operation.name.value
        else:
            first = next(iter(operation.selection_set.selections), None)  # `{ }` parses
            name = first.name.value if isinstance(first, FieldNode) else "anonymous"
        if name in self._names:
            return name
        if len(self._names) >= MAX_OPERATION_NAMES or len(name) > MAX_NAME_CHARACTERS:
            return "other"
        self._names.add(name)
        return name

    def count(self, label: str, outcome: str, seconds: float) -> None:
        """Count an operation that took `seconds`."""
        counters = self._counters.get((label, outcome))
        if counters is None:
            # Cached because the look-up by label takes longer than the counting.
            counters = self._counters[label, outcome] = (
                metrics.REQUESTS.labels(label, outcome),
                metrics.REQUEST_DURATION_SECONDS.labels(label),
            )
        counters[0].inc()
        counters[1].observe(seconds)
