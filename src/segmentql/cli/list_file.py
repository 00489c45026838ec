"""The file of users that a command uploads."""

import contextlib
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

import click

from segmentql.validators import MAX_UPLOAD_BYTES

STDIN: Final = "-"
CHUNK_BYTES: Final = 1024 * 1024
MAX_NAME_CHARACTERS: Final = 255


@dataclass(frozen=True)
class ListFile:
    """An open file with its name, size and SHA-256."""

    file: IO[bytes]
    name: str | None
    """None for standard input."""
    size_bytes: int
    sha256: str

    @property
    def upload_input(self) -> dict[str, object]:
        """The `UploadInput` of `createImport`."""
        named = {} if self.name is None else {"fileName": self.name}
        return {**named, "sizeBytes": self.size_bytes, "sha256": self.sha256}


@contextlib.contextmanager
def open_list(path: str) -> Iterator[ListFile]:
    """Open a file, and measure it. Standard input and pipes are copied to a temporary file.

    Raises:
        click.ClickException: the file cannot be read, or is larger than an upload may be.
    """
    with contextlib.ExitStack() as stack:
        target = None
        try:
            if path == STDIN:
                source: IO[bytes] = sys.stdin.buffer
            else:
                source = stack.enter_context(open(path, "rb"))
            if path == STDIN or not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                target = stack.enter_context(tempfile.TemporaryFile())
            size_bytes, sha256 = _measure(source, target)
        except OSError as error:
            raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
        yield ListFile(target or source, _name(path), size_bytes, sha256)


def _measure(source: IO[bytes], target: IO[bytes] | None) -> tuple[int, str]:
    """Return the size and the SHA-256, and copy the content to `target` if there is one."""
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        size_bytes += len(chunk)
        if size_bytes > MAX_UPLOAD_BYTES:
            raise click.ClickException(
                f"The file is larger than {MAX_UPLOAD_BYTES} bytes. Pack it with gzip, or split it."
            )
        digest.update(chunk)
        if target:
            target.write(chunk)
    return size_bytes, digest.hexdigest()


def _name(path: str) -> str | None:
    if path == STDIN:
        return None
    # The bytes of a name need not be valid UTF-8.
    name = os.fsencode(os.path.basename(path)).decode(errors="replace")
    return name[:MAX_NAME_CHARACTERS]
