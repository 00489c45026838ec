"""The format of a list of users: what the client describes, and what the first bytes show."""

import enum
import re
from dataclasses import dataclass
from typing import Final

from segmentql.errors import SegmentQLError


class Identity(enum.StrEnum):
    """What the column of the users holds."""

    ID = "ID"
    KEY = "KEY"


class HeaderMode(enum.StrEnum):
    """Whether the first row that is not blank has the names of the columns."""

    AUTO = "AUTO"
    PRESENT = "PRESENT"
    ABSENT = "ABSENT"


class Delimiter(enum.StrEnum):
    """The character between the fields of a row."""

    AUTO = "AUTO"
    COMMA = "COMMA"
    SEMICOLON = "SEMICOLON"
    TAB = "TAB"


@dataclass(frozen=True, slots=True)
class ListFormat:
    """The format of a file, as the client describes it."""

    identity: Identity = Identity.ID
    column: str | None = None
    """The name of the users' column in the header."""
    column_number: int | None = None
    """The number of the users' column, from 1. At most one of `column` and this is set."""
    header: HeaderMode = HeaderMode.AUTO
    delimiter: Delimiter = Delimiter.AUTO

    @property
    def default_column(self) -> str:
        """The name of the column that is read if the client names none."""
        return "user_id" if self.identity is Identity.ID else "user_key"


class FileRefused(SegmentQLError):
    """No row of the file can be used. `str(error)` says what is wrong and what to do."""


_UTF_8_BOM: Final = b"\xef\xbb\xbf"
_SAVE_AS_CSV: Final = 'Save it as "CSV UTF-8" in the spreadsheet program, and upload that file.'
_SAVE_AS_UTF_8: Final = 'Save it as UTF-8 (in Excel: "CSV UTF-8"), and upload it again.'

_UTF_32: Final = re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|[^\0]\0\0\0|\0\0\0[^\0]")
_UTF_16: Final = re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0|\0[^\0]")
_COMPRESSED: Final = {
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"BZh91AY&SY": "bzip2",
}
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_XLS: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_GZIP: Final = b"\x1f\x8b"


def is_gzip(beginning: bytes) -> bool:
    """Return whether a file that begins with these bytes is packed with gzip."""
    return beginning.startswith(_GZIP)


def check_text(beginning: bytes) -> bytes:
    """Return the beginning of a text without its byte order mark.

    Args:
        beginning: The first bytes of the unpacked file, at least 10 if it has as many. More bytes
            improve the message for a zip archive.

    Raises:
        FileRefused: The bytes belong to a format that is not UTF-8 text.
    """
    if beginning.startswith(_UTF_8_BOM):
        return beginning[len(_UTF_8_BOM) :]
    if beginning.startswith(_ZIP):
        raise FileRefused(_zip_problem(beginning))
    if beginning.startswith(_XLS):
        raise FileRefused(f"The file is an old Excel workbook (.xls). {_SAVE_AS_CSV}")
    if is_gzip(beginning):
        raise FileRefused("The file is packed with gzip twice. Pack it once, and upload it again.")
    for magic, name in _COMPRESSED.items():
        if beginning.startswith(magic):
            raise FileRefused(
                f"The file is packed with {name}. Upload it unpacked, or packed with gzip."
            )
    for pattern, encoding in ((_UTF_32, "UTF-32"), (_UTF_16, "UTF-16")):
        if pattern.match(beginning):
            raise FileRefused(f"The file is encoded in {encoding}. {_SAVE_AS_UTF_8}")
    return beginning


def _zip_problem(beginning: bytes) -> str:
    if b"xl/" in beginning or b"[Content_Types].xml" in beginning:
        return f"The file is an Excel workbook (.xlsx). {_SAVE_AS_CSV}"
    if b"opendocument.spreadsheet" in beginning:
        return f"The file is an OpenDocument spreadsheet (.ods). {_SAVE_AS_CSV}"
    return (
        "The file is a zip archive. Unpack it, and upload the text file in it, as it is or "
        "packed with gzip."
    )


def invalid_utf_8(line: int) -> FileRefused:
    """Return the refusal of a file whose line, from 1, is not valid UTF-8."""
    return FileRefused(f"Line {line:,} is not valid UTF-8. {_SAVE_AS_UTF_8}")


def nul_byte(line: int) -> FileRefused:
    """Return the refusal of a file whose line, from 1, contains a NUL byte."""
    return FileRefused(
        f"Line {line:,} contains a NUL byte, so the file is not text, or it is damaged. Export the "
        "list again as CSV in UTF-8."
    )
