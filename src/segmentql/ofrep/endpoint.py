"""The endpoints of OFREP: one flag, or the flags of all segments, for the user of a context.

The responses to faults of the server depend on what providers for JavaScript do with them:

- One flag: the status is 500, and the body has `errorCode`. Providers of servers do not read the
  message of another status.
- All flags: the body has no `errorCode`. With it, the provider of a page that starts would not use
  the values that it has stored.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import Receive, Scope

from segmentql import metrics, validators
from segmentql.errors import TimedOut, Unavailable
from segmentql.graphql.context import Context
from segmentql.graphql.execution.operation_metrics import OperationMetrics
from segmentql.graphql.execution.request_errors import cause_of_cancellation
from segmentql.graphql.http.entity_tags import entity_tag, with_entity_tag
from segmentql.graphql.http.http_errors import (
    KEY_HEADER,
    body_too_slow,
    database_unavailable,
    method_not_allowed,
)
from segmentql.graphql.http.http_view import HttpView, ViewServices
from segmentql.graphql.http.media_types import JSON
from segmentql.graphql.http.request_parsing import Headers, list_header, read_json
from segmentql.graphql.http.responses import PreparedResponse, json_response
from segmentql.graphql.types.error_causes import FailureCause
from segmentql.graphql.types.errors import Code, format_internal_error, format_timeout
from segmentql.ofrep.evaluation_context import (
    TargetingKey,
    targeting_key_of,
    user_id_of,
    user_key_of,
)
from segmentql.ofrep.failures import ErrorCode, EvaluationFailure, flag_not_found
from segmentql.ofrep.loaders import FlagById, FlagByKey, FlagsById, FlagsByKey
from segmentql.ofrep.records import FlagRecord, FlagsRecord
from segmentql.ofrep.response_bodies import failure_body, flag_body, flags_body

PATH: Final = "/ofrep/v1/evaluate/flags"

_METHOD_NOT_ALLOWED: Final = 405
_INTERNAL_SERVER_ERROR: Final = 500
_SERVICE_UNAVAILABLE: Final = 503
_TOO_MANY_REQUESTS: Final = 429

_KEY_HEADERS: Final = f"{KEY_HEADER} or X-API-Key: sgql_<id>_<secret>"
"""The forms of the header with the API key, in messages."""

# GraphQL operations cannot have these names, because they contain a space.
_FLAG_OPERATION: Final = "OFREP flag"
_FLAGS_OPERATION: Final = "OFREP flags"


class OfrepEndpoint(HttpView):
    """The ASGI application of the paths that begin with `PATH`. A process has one."""

    def __init__(self, services: ViewServices, targeting_key: TargetingKey, prefix: str) -> None:
        """Create the endpoint.

        Args:
            services: The objects that all views of the process share.
            targeting_key: What the `targetingKey` of a context is.
            prefix: The prefix of the slugs of the segments in a response with all flags.
        """
        super().__init__(services)
        self._targeting_key = targeting_key
        self._flags_by_id: type[FlagsById] = type("FlagsById", (FlagsById,), {"prefix": prefix})
        self._flags_by_key: type[FlagsByKey] = type("FlagsByKey", (FlagsByKey,), {"prefix": prefix})
        self._metrics = OperationMetrics()

    def route(self, scope: Scope) -> str:
        return f"{PATH}/{{key}}" if requested_slug(scope) else PATH

    async def handle(self, scope: Scope, headers: Headers, receive: Receive) -> PreparedResponse:
        self.check_admission(scope, headers)
        services = self.services
        if scope["method"] != "POST":
            raise method_not_allowed("Use POST for evaluations.", "POST")
        principal = await services.authenticator.authenticate(_with_authorization(headers))
        context: Context | None = None
        deadline = services.deadlines.new_deadline()
        try:
            with deadline:
                body = await read_json(headers, receive, services.limits.body_bytes)
                context = services.contexts.new_context(
                    headers, principal, deadline, scope["state"]["request_id"]
                )
                if_none_match = list_header(headers, scope["headers"], b"if-none-match")
                return await self._execute(requested_slug(scope), if_none_match, body, context)
        except TimeoutError:
            if not deadline.has_expired:
                raise
            if context is None:
                raise body_too_slow(services.deadlines.seconds) from None
            metrics.REQUESTS_REJECTED.labels("time").inc()
            error = format_timeout(services.deadlines.seconds, is_mutation=False)
            return self.error_response(_SERVICE_UNAVAILABLE, error, None, scope)

    def error_response(
        self, status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None, scope: Scope
    ) -> PreparedResponse:
        slug = requested_slug(scope)
        if status == _TOO_MANY_REQUESTS and slug is not None:
            # Providers of servers pause the evaluation of all flags for `Retry-After`.
            headers = None
        if status >= _INTERNAL_SERVER_ERROR:
            return _fault(slug, status, _details(error), headers)
        is_unreadable = status != _METHOD_NOT_ALLOWED and error["extensions"]["code"] in {
            Code.BAD_REQUEST,
            Code.LIMIT_EXCEEDED,
        }
        code = ErrorCode.PARSE_ERROR if is_unreadable else ErrorCode.GENERAL
        details = _details(error).replace(KEY_HEADER, _KEY_HEADERS)
        return json_response(failure_body(slug, code, details), status, JSON, headers)

    async def _execute(
        self, slug: str | None, if_none_match: bytes, body: Any, context: Context
    ) -> PreparedResponse:
        """Evaluate, count and log a request. The response reports all failures."""
        started = time.perf_counter()
        operation = _FLAGS_OPERATION if slug is None else _FLAG_OPERATION
        outcome = "failed"
        metrics.REQUESTS_IN_FLIGHT.inc()
        try:
            targeting_key = targeting_key_of(body)
            if slug is None:
                response = self._flags_response(
                    await self._all_flags(targeting_key, context), if_none_match
                )
            else:
                flag = await self._flag(targeting_key, slug, context)
                response = json_response(flag_body(slug, flag), 200, JSON)
            outcome = "done"
            return response
        except EvaluationFailure as failure:
            outcome = "rejected"
            metrics.ERRORS.labels(failure.code).inc()
            context.cause = FailureCause(failure.code, failure.reason)
            if failure.code is ErrorCode.GENERAL:
                return _fault(slug, failure.status, failure.details)
            body = failure_body(slug, failure.code, failure.details)
            return json_response(body, failure.status, JSON)
        except (Unavailable, TimedOut) as error:
            rejection = database_unavailable(error)
            context.cause = FailureCause(str(rejection.extensions["code"]), rejection.reason)
            return _fault(slug, rejection.status, _details(rejection.error()), rejection.headers)
        except asyncio.CancelledError:
            outcome = "cancelled"
            context.cause = cause_of_cancellation(context)
            raise
        except Exception as fault:  # noqa: BLE001 - it is logged, and the client gets an error
            context.cause = FailureCause(Code.INTERNAL, type(fault).__name__)
            masked = format_internal_error(fault, request_id=context.request_id)
            return _fault(slug, _INTERNAL_SERVER_ERROR, _details(masked))
        finally:
            metrics.REQUESTS_IN_FLIGHT.dec()
            seconds = time.perf_counter() - started
            self._metrics.count(operation, outcome, seconds)
            self._log_execution(operation, outcome, seconds, context)

    async def _flag(self, targeting_key: object, slug: str, context: Context) -> FlagRecord:
        """Return one flag of a user.

        Raises:
            EvaluationFailure: The segment does not exist, or the `targetingKey` is not valid.
        """
        if self._targeting_key is TargetingKey.ID:
            user_id = user_id_of(targeting_key)
            loading = context.loader(FlagById).load((user_id, _valid_slug(slug)))
        else:
            user_key = user_key_of(targeting_key)
            loading = context.loader(FlagByKey).load((user_key, _valid_slug(slug)))
        flag = await loading
        if flag is None:
            raise flag_not_found()
        return flag

    async def _all_flags(self, targeting_key: object, context: Context) -> FlagsRecord:
        """Return all flags of a user.

        Raises:
            EvaluationFailure: The `targetingKey` is not valid.
        """
        if self._targeting_key is TargetingKey.ID:
            return await context.loader(self._flags_by_id).load(user_id_of(targeting_key))
        return await context.loader(self._flags_by_key).load(user_key_of(targeting_key))

    def _flags_response(self, record: FlagsRecord, if_none_match: bytes) -> PreparedResponse:
        """Return the response with all flags, or 304 if the client has the same body.

        Raises:
            EvaluationFailure: The body exceeds the maximum size of a response.
        """
        body = flags_body(record)
        limit = self.services.limits.response_bytes
        if len(body) > limit:
            metrics.REQUESTS_REJECTED.labels("size").inc()
            message = f"The response has {len(body)} bytes, more than the limit of {limit}."
            raise EvaluationFailure(ErrorCode.GENERAL, message, message)
        return with_entity_tag(
            PreparedResponse(body, 200, JSON),
            entity_tag([body]),
            if_none_match=if_none_match,
        )

    def _log_execution(
        self, operation: str, outcome: str, seconds: float, context: Context
    ) -> None:
        cause = context.cause
        if self.services.log:
            self.services.log.executed(
                failed=cause is not None,
                is_fault=cause is not None and cause.is_fault,
                request_id=context.request_id,
                operation=operation,
                outcome=outcome,
                duration_ms=round(seconds * 1000, 3),
                key=context.principal.name,
                **(cause.fields if cause else {}),
            )


def is_ofrep_path(path: str) -> bool:
    """Return whether the endpoint handles a path."""
    return path.startswith(PATH) and path[len(PATH) : len(PATH) + 1] in {"", "/"}


def requested_slug(scope: Scope) -> str | None:
    """Return the slug in the path of a request; None if the request is for all flags."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path[len(PATH) + 1 :] or None


def _valid_slug(slug: str) -> str:
    """Return a slug that a segment can have.

    Raises:
        EvaluationFailure: No segment has an invalid slug.
    """
    if validators.is_slug(slug):
        return slug
    raise flag_not_found()


def _with_authorization(headers: Headers) -> Headers:
    """Copy the key of `X-API-Key` to `Authorization`, unless the request has `Authorization`."""
    key = headers.get(b"x-api-key")
    if key is None or b"authorization" in headers:
        return headers
    authorization = f"Bearer {key.decode('latin-1')}"
    return {**headers, b"authorization": authorization.encode("latin-1")}


def _fault(
    slug: str | None, status: int, details: str, headers: Mapping[str, str] | None = None
) -> PreparedResponse:
    """Return the response to a request that the server could not execute."""
    if slug is None:
        return json_response({"errorDetails": details}, status, JSON, headers)
    body = failure_body(slug, ErrorCode.GENERAL, details)
    return json_response(body, _INTERNAL_SERVER_ERROR, JSON, headers)


def _details(error: Mapping[str, Any]) -> str:
    """Return the `errorDetails` of an error, which name the request if the message is masked."""
    message: str = error["message"]
    request_id = error["extensions"].get("requestId")
    return f"{message} The request id is {request_id}." if request_id else message
