"""One import that `segmentql import` carries out through the API."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from segmentql.cli import api_client
from segmentql.cli.api_client import ApiClient, InputRejected, Rejected, Unavailable
from segmentql.cli.list_file import ListFile
from segmentql.cli.output_file import STDOUT, open_output
from segmentql.cli.polling import MAX_POLL_SECONDS, poll
from segmentql.command_documents import (
    APPLY_IMPORT,
    CANCEL_IMPORT,
    CREATE_IMPORT,
    READ_IMPORT,
    READ_IMPORT_RESULT,
    START_IMPORT,
)

FINISHED: Final = frozenset({"COMPLETED", "REFUSED", "FAILED", "CANCELLED"})
STOPPED: Final = FINISHED | {"VALIDATED", "HELD"}
"""The statuses in which an import waits for nothing but a client."""

MAX_RESULT_SECONDS: Final = 300
"""How long the command waits until a worker has written the result of a finished import."""

BAR_STEPS: Final = 1000

_STATE_CONFLICT: Final = ["IMPORT_STATE_CONFLICT"]


class ImportRun:
    """The steps of an import: create, upload and finish, or to apply an earlier dry run."""

    def __init__(self, client: ApiClient) -> None:
        """Prepare to create an import or to apply an earlier one."""
        self._client = client
        self._id: str | None = None
        self._upload: Mapping[str, Any] = {}
        self._is_started = False

    @property
    def continuation(self) -> str:
        """What becomes of the import if the command ends now; a sentence after a space, or ""."""
        if self._id is None:
            return ""
        if not self._is_started:
            return f" The import {self._id} was not started, and nothing was applied."
        return f' The import {self._id} may continue: query import(id: "{self._id}").'

    def create(self, list_file: ListFile, fields: Mapping[str, object]) -> None:
        """Create the import.

        Raises:
            InputRejected: a field is not valid, or the segment does not exist.
        """
        source = {"upload": list_file.upload_input}
        try:
            payload = self._client.mutate(CREATE_IMPORT, source=source, **fields)
        except Rejected as rejected:
            raise InputRejected(str(rejected)) from None
        self._id = payload["import"]["id"]
        self._upload = payload["upload"]

    def upload(self, list_file: ListFile) -> None:
        """Upload the file; repeat it once if the object store does not respond.

        If the second upload fails as well, the import is cancelled.
        """
        try:
            try:
                self._upload_once(list_file)
            except Unavailable as error:
                click.echo(f"{error} Uploading again.", err=True)
                self._upload_once(list_file)
        except (Unavailable, click.ClickException):
            self.cancel()
            raise

    def _upload_once(self, list_file: ListFile) -> None:
        with click.progressbar(
            length=list_file.size_bytes,
            label="uploading",
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
        ) as bar:
            api_client.upload(self._upload, list_file.file, list_file.size_bytes, bar.update)

    def finish(self, allowed_removals: int | None) -> Any:
        """Start the import, and wait until it stops; return it.

        Args:
            allowed_removals: The number of removals up to which a HELD import is applied. None: no
                HELD import is applied.
        """
        self._is_started = True  # the request may arrive, and its response may not
        self._mutate_started(START_IMPORT, id=self._id)
        record = self._wait()
        if (
            record["status"] == "HELD"
            and allowed_removals is not None
            and record["removals"] <= allowed_removals
        ):
            self._mutate_started(APPLY_IMPORT, id=self._id, allowRemovals=allowed_removals)
            record = self._wait()
        return record

    def apply(self, import_id: str, allowed_removals: int | None) -> Any:
        """Apply an import after its dry run or hold, and wait until it stops; return it.

        Args:
            import_id: The import's id.
            allowed_removals: The maximum number of removals. None: a HELD import stays HELD.

        Raises:
            InputRejected: the import does not exist, or is neither VALIDATED nor HELD.
        """
        self._id, self._is_started = import_id, True
        try:
            self._mutate_started(APPLY_IMPORT, id=import_id, allowRemovals=allowed_removals)
        except Rejected as rejected:
            raise InputRejected(str(rejected)) from None
        return self._wait()

    def _mutate_started(self, document: str, **fields: object) -> None:
        """Send a mutation that changes the status, and repeat it once if there is no response."""
        try:
            self._client.mutate(document, **fields)
        except Unavailable:
            time.sleep(MAX_POLL_SECONDS)
            try:
                self._client.mutate(document, **fields)
            except Rejected as rejected:
                # The first request arrived.
                if rejected.codes != _STATE_CONFLICT:
                    raise

    def _wait(self) -> Any:
        with click.progressbar(
            length=BAR_STEPS,
            label="waiting for a worker",
            show_eta=False,
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
        ) as bar:

            def is_stopped(record: Any) -> bool:
                bar.label = record["status"].lower()
                bar.update(int(record["progress"] * BAR_STEPS) - bar.pos)
                bar.render_progress()
                return record["status"] in STOPPED

            return poll(self._client, READ_IMPORT, self._id, is_stopped)

    def write_result(self, record: Any, target: str) -> None:
        """Download the result of an import into a file, when a worker has written it."""
        if record["status"] not in FINISHED or record["rows"] is None:
            click.echo(f"{target} is not written, because the import has no result.", err=True)
            return
        give_up_at = time.monotonic() + MAX_RESULT_SECONDS
        read = poll(
            self._client,
            READ_IMPORT_RESULT,
            self._id,
            lambda read: read["resultUrl"] or time.monotonic() > give_up_at,
        )
        if not read["resultUrl"]:
            raise click.ClickException(
                f"No worker has written the result within {MAX_RESULT_SECONDS} s. Query"
                f' import(id: "{self._id}") {{ resultUrl }} later.'
            )
        with open_output(target) as write:
            api_client.download(read["resultUrl"], write)
        if target != STDOUT:
            click.echo(f"The outcome of each row is in {target}.", err=True)

    def cancel(self) -> str:
        """Cancel the import; return a sentence about its state."""
        if self._id is None:
            return "Nothing was imported."
        try:
            self._client.mutate(CANCEL_IMPORT, id=self._id)
        except Rejected:
            return f"The import {self._id} was finished before."
        except (Unavailable, KeyboardInterrupt, click.ClickException):
            return f"The import {self._id} could not be cancelled.{self.continuation}"
        if self._is_started:
            return f"The import {self._id} was cancelled. What was applied stays."
        return f"The import {self._id} was cancelled. Nothing was applied."
