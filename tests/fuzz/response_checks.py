"""Checks of effects that no request may have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import httpx

from tests.conftest import Sql
from tests.fuzz.requests import HttpRequest, save
from tests.keys.clients import stored_rows

ERRORS_ALIAS = "refusals"
"""The alias under which a generated mutation selects the errors of its payload."""

CODES = {"BAD_REQUEST", "LIMIT_EXCEEDED"}
"""Error codes that a malformed request may get; every other code means a failure of the service."""

Answer: TypeAlias = Mapping[str, Any]


class Harm(AssertionError):
    """The error of a request with a forbidden effect."""


TABLES_WITH_LEAVES: Final = {"memberships", "history", "segments"}
"""What `changes` changes, although it is a query: it first records the leaves that are due."""


class EffectMonitor:
    """Sends requests one after the other and checks their effects.

    No other client may change rows in the meantime, unless `forget` is called.
    """

    def __init__(self, client: httpx.AsyncClient, sql: Sql) -> None:
        self._client = client
        self._sql = sql
        self.sent = 0
        self.rejected = 0
        self.executed = 0
        self.changes = 0
        self._rows: Any = None
        self._kept: Path | None = None

    def forget(self) -> None:
        """Accept rows that others changed since the last request."""
        self._rows = None

    async def send(self, sent: HttpRequest) -> Answer | None:
        """Send a request and return its response if it is one of GraphQL.

        Raises:
            Harm: The request had a forbidden effect; it is in the corpus now.
        """
        if self._rows is None:
            self._rows = await stored_rows(self._sql)
        self.sent += 1
        try:
            response = await self._client.request(
                sent.method, sent.target, content=sent.body, headers=sent.encoded_headers
            )
            answer = self._check(response)
            before, self._rows = self._rows, await stored_rows(self._sql)
            if is_rejected(response.status_code, answer):
                self.rejected += 1
                if self._rows != before:
                    tables = {name for name, rows in before.items() if rows != self._rows[name]}
                    if not (b"changes" in sent.body and tables <= TABLES_WITH_LEAVES):
                        raise Harm(f"rejected, but {tables} changed: {response.text[:500]}")
            elif self._rows != before:
                self.changes += 1
        except httpx.LocalProtocolError:
            return None  # the client itself does not send such a request
        except (Harm, httpx.HTTPError) as harm:
            self._save(sent)
            raise Harm(
                f"{harm!r}\nnow in {self._kept}: fix the fault and commit that file"
            ) from harm
        return answer

    def _save(self, sent: HttpRequest) -> None:
        """Store only this request in the corpus, because those before it did no harm."""
        if self._kept:
            self._kept.unlink(missing_ok=True)
        self._kept = save(sent)

    def _check(self, response: httpx.Response) -> Answer | None:
        if response.status_code >= 500:
            raise Harm(f"status {response.status_code}: {response.text[:500]}")
        if "json" not in response.headers.get("content-type", "") or not response.content:
            return None
        answer: Answer = response.json()
        if "data" in answer:
            self.executed += 1
        errors = answer.get("errors", [])
        if response.status_code == 200:
            codes = {error["extensions"]["code"] for error in errors}
            if not codes <= CODES:
                raise Harm(f"{codes - CODES}: {errors}")
        for error in errors:
            if any(word in error["message"] for word in ("Traceback", "sqlalchemy", "asyncpg")):
                raise Harm(f"a fault shows its cause: {error}")
        return answer


def is_rejected(status: int, answer: Answer | None) -> bool:
    """Return whether a request says that nothing was changed."""
    if status != 200 or answer is None or "data" not in answer:
        return True
    data = answer["data"]
    if data is None:
        return False  # a fault of a non-null field, perhaps below the changed object
    below = {error["path"][0] for error in answer.get("errors", []) if len(error["path"]) > 1}
    return all(
        payload.get(ERRORS_ALIAS, True) if isinstance(payload, dict) else name not in below
        for name, payload in data.items()
    )
