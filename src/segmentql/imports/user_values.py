"""User ids and keys in a list: which text is one, and if not, why.

Spaces and tabs around an id are ignored. A key is used exactly as the file holds it, spaces
included, because keys are compared byte by byte.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from segmentql import validators
from segmentql.errors import BadValue
from segmentql.tables import RowOutcome
from segmentql.validators import MAX_USER_ID, MAX_USER_KEY_LENGTH

TRIMMED: Final = " \t"
"""The characters that are ignored around an id and in a blank row."""

MAX_ID_TEXT_CHARACTERS: Final = 255

_POSITIVE_NUMBER: Final = re.compile(r"[1-9][0-9]*")
_SPREADSHEET: Final = "Format the column as text in the spreadsheet program, and export it again."

_OTHER_TEXT: Final = f"The text is not a user id: {validators.USER_ID_ALLOWED}."

_NOT_AN_ID: Final = {
    r"0+": "Zero is not a user id. Ids begin at 1.",
    r"0[0-9]+": "A user id has no leading zeros.",
    r"-[0-9]+": "A user id is not negative.",
    r"\+[0-9]+": "A user id has no sign.",
    r"[+-]?[0-9]+(?:[.,][0-9]*)?[eE][+-]?[0-9]+": (
        f"The number is in scientific notation, which loses digits of the id. {_SPREADSHEET}"
    ),
    r"[0-9]{1,3}(?:[,.' \u00a0\u202f][0-9]{3})+": "A user id has no thousands separators.",
    r"[+-]?[0-9]*[.,][0-9]*": "A user id has no decimal point and no decimals.",
}
"""Patterns of texts that look like a number, and why they are not ids. The first match counts."""

_NUMBER_LIKE: Final = re.compile("|".join(f"({pattern})" for pattern in _NOT_AN_ID))
_NUMBER_PROBLEMS: Final = list(_NOT_AN_ID.values())


def parse_ids(texts: list[str]) -> list[int] | None:
    """Return the ids of several rows, at least one, or None if not all texts are plain ids.

    It is many times faster than `parse_id`, because no Python code runs for each text.
    """
    try:
        ids = list(map(int, texts))
    except ValueError:  # also for a number of more than 4,300 digits
        return None
    # `int` also reads signs, spaces, leading zeros, `_` and the digits of other scripts.
    if list(map(str, ids)) != texts or min(ids) < 1 or max(ids) > MAX_USER_ID:
        return None
    return ids


def parse_id(text: str) -> int | tuple[RowOutcome, str]:
    """Return the id in a text that is not blank, or the outcome and the reason of its row."""
    trimmed = text.strip(TRIMMED)
    if not _POSITIVE_NUMBER.fullmatch(trimmed):
        return RowOutcome.MALFORMED, _why_not_an_id(trimmed)
    try:
        return validators.user_id(trimmed)
    except BadValue:
        return RowOutcome.OUT_OF_RANGE, f"The largest user id is {MAX_USER_ID}."


def are_keys(texts: Sequence[str]) -> bool:
    """Return whether all texts of several rows are keys, if that is certain without a closer look.

    It is many times faster than `parse_key`, because no Python code runs for each text.
    """
    return (
        max(map(len, texts)) <= MAX_USER_KEY_LENGTH
        and "".join(texts).isprintable()  # control characters are not printable
        and all(map(str.strip, texts))
    )


def parse_key(text: str) -> str | tuple[RowOutcome, str]:
    """Return the key in a text that is not blank, or the outcome and the reason of its row."""
    try:
        return validators.user_key(text)
    except BadValue:
        if len(text) > MAX_USER_KEY_LENGTH:
            problem = (
                f"The key has {len(text):,} characters. At most {MAX_USER_KEY_LENGTH} are allowed."
            )
        else:
            problem = "The key contains a control character, such as a line end or a tab."
        return RowOutcome.MALFORMED, problem


def _why_not_an_id(text: str) -> str:
    if len(text) > MAX_ID_TEXT_CHARACTERS:
        return f"The text is too long for a user id: {len(text):,} characters."
    number_like = _NUMBER_LIKE.fullmatch(text)
    if number_like and number_like.lastindex:
        return _NUMBER_PROBLEMS[number_like.lastindex - 1]
    if text.isascii() and text.isprintable():
        return _OTHER_TEXT
    for character in text:
        category = unicodedata.category(character)
        if category == "Cc":
            return "The text contains a control character, such as a line end or a tab."
        if category in {"Cf", "Zs"} and character != " ":
            return f"The text contains the invisible character U+{ord(character):04X}. Remove it."
        if category == "Nd" and not character.isascii():
            return "A user id has the digits 0 to 9 only, not those of other scripts."
    return _OTHER_TEXT
