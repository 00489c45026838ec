"""The rows of a query as a stream of CSV, which PostgreSQL writes."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from segmentql.adapters.copying import copy_csv
from segmentql.adapters.sessions import ReadSession

CHUNKS_AHEAD: Final = 40
"""The maximum number of unread chunks of about 64 KiB. While a part is sent to the store, the
database writes further chunks."""


class CsvStream:
    """The CSV of a query with a header, which can be read once."""

    def __init__(
        self,
        session: ReadSession,
        statement: str,
        arguments: Sequence[object],
        *,
        chunks_ahead: int = CHUNKS_AHEAD,
    ) -> None:
        """Prepare the stream.

        Args:
            session: The session. After an error, it cannot be used any more.
            statement: A SELECT with parameters in asyncpg's form, such as `$1`.
            arguments: The values of the parameters.
            chunks_ahead: The maximum number of unread chunks.
        """
        self._session = session
        self._statement = statement
        self._arguments = arguments
        self._chunks_ahead = chunks_ahead
        self.rows = 0
        """The number of rows, after all chunks are read."""

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the CSV in chunks. Close the generator to stop the query before its end.

        Raises:
            Unavailable: The connection was lost.
            TimedOut: The query exceeded the session's timeout.
        """
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(self._chunks_ahead)

        async def copy() -> None:
            try:
                self.rows = await copy_csv(
                    self._session, self._statement, self._arguments, chunks.put
                )
            except BaseException:
                # Makes room for the end marker, because the reader may have stopped.
                while not chunks.empty():
                    chunks.get_nowait()
                raise
            finally:
                await chunks.put(None)

        copy_task = asyncio.create_task(copy())
        try:
            while (chunk := await chunks.get()) is not None:
                yield chunk
            await copy_task
        finally:
            copy_task.cancel()
            await asyncio.gather(copy_task, return_exceptions=True)
