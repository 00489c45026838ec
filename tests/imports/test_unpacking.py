"""What a file is: gzip, encodings, limits, and files that are refused whole."""

import gzip
import io
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator

import pytest

from segmentql.imports.file_format import FileRefused, ListFormat
from segmentql.imports.parsing import read_rows
from segmentql.imports.unpacking import MAX_GZIP_MEMBERS
from segmentql.tables import RowOutcome
from tests.imports.reading import IDS, KEYS, read, refusal, summary, users

PACK_AGAIN = "Pack it again with gzip, or upload it unpacked."
AS_CSV = 'Save it as "CSV UTF-8" in the spreadsheet program, and upload that file.'
AS_UTF_8 = 'Save it as UTF-8 (in Excel: "CSV UTF-8"), and upload it again.'


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "1\n")
    return file.getvalue()


def test_byte_order_mark_of_utf_8_is_ignored() -> None:
    bom = b"\xef\xbb\xbf"
    assert summary(read(bom + b"1\n2\n")) == [(1, 1), (2, 2)]
    assert summary(read(bom + b'"user_id",x\n2,3\n')) == [(1, RowOutcome.HEADER), (2, 2)]
    assert users(bom + "é\n".encode(), KEYS) == ["é"]
    assert users(gzip.compress(bom + b"1\n")) == [1]


def test_gzip_is_recognised_and_members_are_joined() -> None:
    members = [b"1\n2", b"3\n", b"", b"4\n5\n"]
    packed = b"".join(map(gzip.compress, members))
    assert users(packed) == [1, 23, 4, 5]
    assert users(packed + b"\0" * 100) == [1, 23, 4, 5]
    assert users(gzip.compress(b"")) == []


def test_gzip_is_read_at_every_cut() -> None:
    packed = gzip.compress(b"1\n2") + b"\0\0" + gzip.compress(b"3\n4\n")
    for cut in range(len(packed) + 1):
        rows = read([packed[:cut], packed[cut:]])
        assert [row.user_id for row in rows] == [1, 23, 4], cut


@pytest.mark.parametrize("missing", [1, 4, 8, 9, 20])
def test_gzip_that_ends_too_early_is_refused(missing: int) -> None:
    packed = gzip.compress(b"1\n2\n3\n4\n")
    message = f"The gzip file ends too early: a part of it is missing. {PACK_AGAIN}"
    assert refusal(packed[:-missing]) == message
    assert refusal(packed + packed[:-missing]) == message


def test_damaged_gzip_is_refused() -> None:
    packed = bytearray(gzip.compress(b"1\n2\n3\n4\n"))
    message = f"The gzip file is damaged. {PACK_AGAIN}"
    for position in (2, 12, len(packed) - 8, len(packed) - 1):
        damaged = packed.copy()
        damaged[position] ^= 0xFF
        assert refusal(bytes(damaged)) == message, position
    assert refusal(bytes(packed) + b"1\n") == message


def test_gzip_of_very_many_members_is_refused() -> None:
    empty = gzip.compress(b"")
    started = time.process_time()
    assert refusal(empty * (MAX_GZIP_MEMBERS + 1)) == (
        f"The file consists of more than 100,000 gzip files. {PACK_AGAIN}"
    )
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            zipped("[Content_Types].xml", "xl/workbook.xml"),
            f"The file is an Excel workbook (.xlsx). {AS_CSV}",
        ),
        (
            b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
            f"The file is an OpenDocument spreadsheet (.ods). {AS_CSV}",
        ),
        (
            zipped("users.csv"),
            "The file is a zip archive. Unpack it, and upload the text file in it, as it is or "
            "packed with gzip.",
        ),
        (
            zipped(),
            "The file is a zip archive. Unpack it, and upload the text file in it, as it is or "
            "packed with gzip.",
        ),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
            f"The file is an old Excel workbook (.xls). {AS_CSV}",
        ),
        (
            b"BZh91AY&SY123",
            "The file is packed with bzip2. Upload it unpacked, or packed with gzip.",
        ),
        (
            b"\x28\xb5\x2f\xfd123",
            "The file is packed with zstd. Upload it unpacked, or packed with gzip.",
        ),
        (
            gzip.compress(b"1\n", mtime=0),
            "The file is packed with gzip twice. Pack it once, and upload it again.",
        ),
        *(
            (f"{bom}12\n3\n".encode(encoding), f"The file is encoded in {name}. {AS_UTF_8}")
            for name in ("UTF-16", "UTF-32")
            for encoding in (f"{name}-LE", f"{name}-BE")
            for bom in ("", "\ufeff")
        ),
    ],
)
def test_other_formats_are_refused_with_what_to_do(data: bytes, message: str) -> None:
    if not data.startswith(b"\x1f\x8b"):
        assert refusal(data) == message
    assert refusal(gzip.compress(data)) == message


def test_key_may_begin_like_a_format() -> None:
    assert users(b"BZhang\nPK\n7z\n", KEYS) == ["BZhang", "PK", "7z"]


@pytest.mark.parametrize("data", [b"1\n2\n3\x00\n", b"user_id,x\n1,\x00\n"])
def test_nul_byte_is_refused_with_its_line(data: bytes) -> None:
    line = 3 if data.startswith(b"1") else 2
    assert refusal(data) == (
        f"Line {line} contains a NUL byte, so the file is not text, or it is damaged. Export the "
        "list again as CSV in UTF-8."
    )


@pytest.mark.parametrize(
    "text", [b"\xe9", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"\xff"]
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_invalid_utf_8_is_refused_with_its_line(text: bytes, end: bytes) -> None:
    message = f"Line 3 is not valid UTF-8. {AS_UTF_8}"
    assert refusal(end.join([b"a", b"b", b"c" + text, b"d"]), KEYS) == message
    assert refusal(end.join([b"a", b"b", b"c" + text]), KEYS) == message


def test_line_of_invalid_utf_8_is_counted_over_blocks() -> None:
    data = b"123456789\n" * 100_000 + b"x\xe9\n"
    assert refusal(data) == f"Line 100,001 is not valid UTF-8. {AS_UTF_8}"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_unpacked_size_is_limited(pack: type[bytes]) -> None:
    data = "".join(f"{n * n * 7_919 + 1}\n" for n in range(10_000)).encode()

    def count(limit: int) -> int:
        return sum(map(len, read_rows([pack(data)], IDS, max_unpacked_bytes=limit)))

    assert count(len(data)) == 10_000
    with pytest.raises(FileRefused) as raised:
        count(len(data) - 1)
    assert str(raised.value) == (
        f"The file has more than {len(data) - 1:,} bytes unpacked. Split it into smaller files."
    )


def test_ratio_of_gzip_is_limited() -> None:
    data = b"1234567\n" * 20_000
    packed = gzip.compress(data)
    ratio = len(data) / len(packed)
    assert ratio > 200
    assert refusal(packed) == (
        "The file has more than 200 times as many bytes unpacked as packed. Upload it unpacked, or "
        "check what it contains."
    )
    assert sum(map(len, read_rows([packed], IDS, max_ratio=int(ratio) + 1))) == 20_000
    with pytest.raises(FileRefused, match="times as many bytes"):
        sum(map(len, read_rows([packed], IDS, max_ratio=int(ratio))))
    assert len(read(data)) == 20_000


CHUNK = 65_536


def peak_memory(chunks: Iterator[bytes], list_format: ListFormat = IDS) -> tuple[int, int, str]:
    """Return the peak of the allocated bytes, the number of rows, and the refusal or ""."""
    rows, problem = 0, ""
    tracemalloc.start()
    try:
        for batch in read_rows(chunks, list_format):
            rows += len(batch)
            del batch
        return tracemalloc.get_traced_memory()[1], rows, problem
    except FileRefused as error:
        return tracemalloc.get_traced_memory()[1], rows, str(error)
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "list_format"),
    [
        (b"123456789012345\n", IDS),
        (b"123456789012345\n", KEYS),
        (b"1234567x9012345\n", IDS),
        (b'1234567,"x\ny","z"\n', ListFormat(column_number=1)),
    ],
)
def test_memory_of_a_long_list_is_bounded(rows: bytes, list_format: ListFormat) -> None:
    """All rows together would need more than 20 MiB. It takes seconds because of tracemalloc."""
    count = 100_000
    peak, read_count, problem = peak_memory(
        (rows * 1_000 for _ in range(count // 1_000)), list_format
    )
    assert (read_count, problem) == (count, "")
    assert peak < 15 * 2**20


@pytest.mark.parametrize("byte", [b"1", b"x", b" ", b",", b'"', b"\t", b'"x'])
def test_memory_of_a_file_without_line_ends_is_bounded(byte: bytes) -> None:
    chunks_read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal chunks_read
        for _ in range(2**30 // CHUNK):  # 1 GiB
            chunks_read += 1
            yield byte * (CHUNK // len(byte))

    peak, rows, problem = peak_memory(chunks())
    assert (rows, "The row that begins in line 1" in problem) == (0, True), problem
    assert peak < 20 * 2**20
    assert chunks_read < 20


def test_memory_of_an_open_quote_is_bounded() -> None:
    lines = b"123456789\n" * 6_553
    peak, _, problem = peak_memory(lines if number else b'1\n2\n"3\n' for number in range(10_000))
    assert "The row that begins in line 3 has more than 131,072 characters." in problem
    assert peak < 30 * 2**20


def test_row_of_endless_quoted_lines_is_refused_early() -> None:
    chunks_read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal chunks_read
        yield b"user_id,note\n" + b"1,a\n" * 100_000 + b"2"
        for _ in range(50):
            chunks_read += 1
            yield b',"x\ny"' * 10_000

    assert "The row that begins in line 100,002 has more than 131,072" in refusal(chunks())
    assert chunks_read < 10


def test_memory_of_a_gzip_bomb_is_bounded() -> None:
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(b"1," + b"x" * 8_189 + b"\n") for _ in range(2**14))
    bomb += compressor.flush()
    peak, _, problem = peak_memory(iter([bomb]), ListFormat(column_number=1))  # 128 MiB
    assert "more than 200 times as many bytes unpacked" in problem
    assert peak < 60 * 2**20


def test_tiny_chunks_need_linear_time_and_little_memory() -> None:
    data = b"1234567\n" * 10_000
    started = time.process_time()
    peak, rows, _ = peak_memory(data[i : i + 1] for i in range(len(data)))
    assert rows == 10_000
    assert peak < 20 * 2**20
    assert time.process_time() - started < 5
