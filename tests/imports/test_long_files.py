"""Rows of long files: the limit of a row, the batches, and the lines."""

import pytest

from segmentql.imports.file_format import HeaderMode, ListFormat
from segmentql.imports.parsing import read_rows
from segmentql.imports.row_parser import MAX_ROW_CHARACTERS
from segmentql.tables import RowOutcome
from tests.imports.reading import IDS, read, refusal, users

MALFORMED = RowOutcome.MALFORMED
NO_HEADER = ListFormat(header=HeaderMode.ABSENT)


@pytest.mark.parametrize("character", ["x", "é", "😀"])
@pytest.mark.parametrize("before", [1, 100_000])
def test_row_may_have_131072_characters_and_no_more(character: str, before: int) -> None:
    def data(length: int) -> bytes:
        text = "1,a\n" * before + f"2,{character * (length - 2)}\n3,c\n"
        return f"user_id,note\n{text}".encode()

    assert users(data(MAX_ROW_CHARACTERS))[before:] == [2, 3]
    assert refusal(data(MAX_ROW_CHARACTERS + 1)) == (
        f"The row that begins in line {before + 2:,} has more than 131,072 characters. "
        "Perhaps a quote in it is not closed, or the file has no line ends. Put one user in each "
        "line."
    )


def test_row_of_several_lines_may_have_131072_characters_and_no_more() -> None:
    def data(length: int) -> bytes:
        lines, rest = divmod(length - 4, 100)
        return b'user_id,note\n1,"' + (b"x" * 99 + b"\n") * lines + b"x" * rest + b'"\n2,b\n'

    assert users(data(MAX_ROW_CHARACTERS)) == [1, 2]
    for length in (MAX_ROW_CHARACTERS + 1, 2 * MAX_ROW_CHARACTERS, 10 * MAX_ROW_CHARACTERS):
        assert "The row that begins in line 2 has more than" in refusal(data(length))


def test_batches_are_full_except_the_last() -> None:
    data = b"\n".join(b"%d" % number for number in range(1, 25_001))
    batches = list(read_rows([data], IDS, batch_rows=10_000))
    assert [len(batch) for batch in batches] == [10_000, 10_000, 5_000]
    assert [row.user_id for batch in batches for row in batch] == [*range(1, 25_001)]
    assert [len(batch) for batch in read_rows([data], IDS, batch_rows=12_500)] == [12_500] * 2
    assert [len(batch) for batch in read_rows([b"1\n2\n3"], IDS, batch_rows=1)] == [1, 1, 1]


def test_good_and_bad_rows_keep_their_lines_in_a_long_file() -> None:
    texts = [str(n) if n % 777 else "x" for n in range(1, 60_001)]
    rows = read("\n".join(texts).encode(), NO_HEADER)
    assert [row.line for row in rows] == [*range(1, 60_001)]
    assert [row.value for row in rows] == texts
    assert all((row.user_id == row.line) == (row.outcome is None) for row in rows)
    assert sum(row.outcome is MALFORMED for row in rows) == 60_000 // 777
