"""What no request may do, whatever it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import httpx

from tests.conftest import Sql
from tests.fuzz.requests import Sent, keep
from tests.keys.clients import stored_rows

REFUSALS = "refusals"
"""The alias under which a mutation that is made here asks for its payload's errors."""

CODES = {"BAD_REQUEST", "LIMIT_EXCEEDED"}
"""What may be told to whoever asks nonsense; all else says that something does not work."""

Answer: TypeAlias = Mapping[str, Any]


class Harm(AssertionError):
    """A request did what none may do."""


class Judge:
    """Sends requests, one after the other, and looks at what comes of each.

    Nobody else may change rows meanwhile, unless `forget` is told of it.
    """

    def __init__(self, client: httpx.AsyncClient, sql: Sql) -> None:
        self._client = client
        self._sql = sql
        self.sent = 0
        self.refused = 0
        self.executed = 0
        self.changes = 0
        self._rows: Any = None
        self._kept: Path | None = None

    def forget(self) -> None:
        """Others changed rows since the last request."""
        self._rows = None

    async def send(self, sent: Sent) -> Answer | None:
        """Send a request; its answer, where that is one of GraphQL.

        Raises:
            Harm: it did harm; it is in the corpus now.
        """
        if self._rows is None:
            self._rows = await stored_rows(self._sql)
        self.sent += 1
        try:
            response = await self._client.request(
                sent.method, sent.target, content=sent.body, headers=sent.encoded_headers
            )
            answer = self._judged(response)
            before, self._rows = self._rows, await stored_rows(self._sql)
            if is_refused(response.status_code, answer):
                self.refused += 1
                if self._rows != before:
                    raise Harm(f"refused, and yet rows were changed: {response.text[:500]}")
            elif self._rows != before:
                self.changes += 1
        except httpx.LocalProtocolError:
            return None  # the client itself does not send such a thing
        except (Harm, httpx.HTTPError) as harm:
            self._keep(sent)
            raise Harm(f"{harm!r}\nnow in {self._kept}: mend it and commit that file") from harm
        return answer

    def _keep(self, sent: Sent) -> None:
        """Put it into the corpus: it alone, for what came before it led to it."""
        if self._kept:
            self._kept.unlink(missing_ok=True)
        self._kept = keep(sent)

    def _judged(self, response: httpx.Response) -> Answer | None:
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
                raise Harm(f"a fault tells of itself: {error}")
        return answer


def is_refused(status: int, answer: Answer | None) -> bool:
    """Whether a request says that nothing was changed."""
    if status != 200 or answer is None or "data" not in answer:
        return True
    data = answer["data"]
    if data is None:
        return False  # a field that may not be null faulted, perhaps below what was changed
    below = {error["path"][0] for error in answer.get("errors", []) if len(error["path"]) > 1}
    return all(
        payload.get(REFUSALS, True) if isinstance(payload, dict) else name not in below
        for name, payload in data.items()
    )
