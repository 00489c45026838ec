"""Limits of the texts in error messages, which may repeat values of the client."""

from typing import Final

MAX_ECHO_CHARACTERS: Final = 40
"""The number of characters of a client's value that an error message repeats."""

MAX_MESSAGE_CHARACTERS: Final = 1000
"""The maximum length of an error message. Messages of graphql-core repeat values of the client."""


def shorten_value(text: str) -> str:
    """Return a value for an error message: if it is long, only its beginning and its length."""
    if len(text) <= MAX_ECHO_CHARACTERS:
        return text
    return f"{text[:MAX_ECHO_CHARACTERS]}... ({len(text)} characters)"


def shorten_message(message: str) -> str:
    """Return an error message, without its middle if it is long."""
    if len(message) <= MAX_MESSAGE_CHARACTERS:
        return message
    half = MAX_MESSAGE_CHARACTERS // 2
    omitted = len(message) - 2 * half
    return f"{message[:half]}... ({omitted} characters omitted) ...{message[-half:]}"
