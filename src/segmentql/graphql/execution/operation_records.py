"""The records of an operation that has ended: its log line and its span."""

from segmentql.graphql.context import Context
from segmentql.graphql.types.error_causes import FailureCause
from segmentql.logs import RequestLog
from segmentql.tracing import setup
from segmentql.tracing.active import describe_operation


class OperationRecorder:
    """Records the operations of one process."""

    def __init__(self, log: RequestLog | None) -> None:
        self._log = log
        self._is_traced = setup.is_on()

    def record(
        self,
        operation: tuple[str | None, str],
        context: Context,
        cause: FailureCause | None,
        *,
        outcome: str,
        cost: int | None,
        seconds: float,
    ) -> None:
        """Write the log line of an operation, and add it to the span of its request.

        Args:
            operation: The kind of the operation, which is None if its document was rejected, and
                its name in metrics.
            context: The context of the request.
            cause: The cause of its failure, if it failed or was rejected.
            outcome: The outcome in metrics.
            cost: The estimated cost, if it is known.
            seconds: The duration.
        """
        kind, name = operation
        if self._is_traced:
            describe_operation(kind, name, outcome=outcome, cost=cost, cause=cause)
        if self._log:
            self._log.executed(
                failed=cause is not None,
                is_fault=cause is not None and cause.is_fault,
                request_id=context.request_id,
                operation=name,
                outcome=outcome,
                duration_ms=round(seconds * 1000, 3),
                cost=cost,
                key=context.principal.name,
                **(cause.fields if cause else {}),
            )
