"""`Accept-Encoding` determines the encoding of a response."""

import pytest

from segmentql.adapters.content_encoding import (
    MAX_ACCEPT_ENCODING_BYTES,
    ContentEncoding,
    negotiate_encoding,
)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", "identity"),
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("zstd", "zstd"),
        ("br", "identity"),
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip;q=0.8", "gzip"),
        ("zstd ; q=0.8 , gzip ; Q=0.5", "zstd"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.000, zstd;q=0.001", "zstd"),
        ("*", "gzip"),
        ("*;q=0", "identity"),
        ("gzip;q=0, *", "identity"),
        ("zstd;q=0, *", "gzip"),
        ("gzip, *;q=0", "gzip"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0", "identity"),  # no encoding is acceptable, and a body is better than none
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("gzip;q=1.001", "identity"),
        ("gzip;q=-1, zstd;q=nan", "identity"),
        ("gzip;q=, zstd", "zstd"),
        (",;q=1,, gzip", "gzip"),
        ("gzipped", "identity"),
        ("\xff\xfe", "identity"),
    ],
)
def test_preferred_encoding_is_chosen(header: str, encoding: str) -> None:
    assert negotiate_encoding(header.encode("latin-1")) is ContentEncoding(encoding)


def test_long_header_is_ignored() -> None:
    longest = b"gzip" + b" " * (MAX_ACCEPT_ENCODING_BYTES - 4)
    assert negotiate_encoding(longest) is ContentEncoding.GZIP
    assert negotiate_encoding(longest + b" ") is ContentEncoding.IDENTITY
