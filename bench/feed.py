"""A consumer of the change feed that reads it by the pull query and checks what it reads."""

from typing import Any, Final

from bench.comparison import WrongResponse
from bench.data import Sizes, slug
from bench.http import GraphQLClient

BATCH_CHANGES: Final = 1000
"""The maximum number of changes in a batch."""

CHECK_EVERY: Final = 50
"""The number of changes of which one is compared with the expected data."""

CHANGES: Final = """
query($after: String, $start: FeedStart!, $wait: Int!) {
  changes(after: $after, start: $start, first: 1000, waitSeconds: $wait) {
    events {
      cursor at
      ... on MembershipEvent { entry { id userId operation cause segment { slug } } }
    }
    cursor caughtUp
  }
}
"""


class Consumer:
    """A consumer that stores the cursor after each batch and continues from it."""

    def __init__(self, client: GraphQLClient, sizes: Sizes) -> None:
        self._client = client
        self._sizes = sizes
        self._cursor: str | None = None
        self._ids: set[str] = set()
        self._new_segment_slug: str | None = None

    @property
    def changes(self) -> int:
        """The number of changes that were read."""
        return len(self._ids)

    async def start_at_the_newest_change(self, *, new_segment_slug: str) -> None:
        """Skip all changes until now. The following ones must be joins of one segment."""
        self._new_segment_slug = new_segment_slug
        batch = await self._read_batch(start="NOW", wait_seconds=0)
        if batch["events"]:
            raise WrongResponse("the first batch of a new consumer is not empty")

    async def read(self, *, wait_seconds: int = 0) -> bool:
        """Read the next batch. Return whether it ends at the newest change.

        Raises:
            WrongResponse: A change came twice, or is not the expected one.
        """
        batch = await self._read_batch(start="EARLIEST", wait_seconds=wait_seconds)
        events = batch["events"]
        before = len(self._ids)
        self._ids.update(event["entry"]["id"] for event in events)
        if len(self._ids) != before + len(events):
            raise WrongResponse("the feed returned a change twice")
        for event in events[::CHECK_EVERY]:
            self._check(event["entry"])
        return bool(batch["caughtUp"])

    async def _read_batch(self, *, start: str, wait_seconds: int) -> Any:
        data = await self._client(CHANGES, after=self._cursor, start=start, wait=wait_seconds)
        batch = data["changes"] if data else None
        if batch is None or len(batch["events"]) > BATCH_CHANGES:
            raise WrongResponse("the query of changes failed, or returned too many")
        self._cursor = batch["cursor"]
        return batch

    def _check(self, entry: Any) -> None:
        found = entry["segment"]["slug"]
        expected = (
            [self._new_segment_slug]
            if self._new_segment_slug
            else list(map(slug, self._sizes.segment_ids(int(entry["userId"]))))
        )
        if found not in expected or (entry["operation"], entry["cause"]) != ("JOINED", "MANUAL"):
            raise WrongResponse(f"the feed returned {entry}; expected a join of {expected}")
