"""Values that several processes share in files, safe on a full disk and with damaged files.

prometheus-client maps sparse files: if the disk is full, the first write to a page ends the process
by SIGBUS. Here the blocks of a file are reserved before the file is mapped. Without room the values
stay in the memory of their process, and move to the file as soon as there is room.
"""

import contextlib
import json
import logging
import mmap
import os
import re
import struct
import sys
import time
import weakref
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import Metric, multiprocess, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

FIRST_BYTES: Final = 65_536
"""The size of a new file, in bytes; a full file doubles."""

RETRY_SECONDS: Final = 2
"""How often values in memory try to move to their file."""

HEADER_BYTES: Final = 8
ENTRY_BYTES: Final = 32
"""The most that an entry needs besides its key: length, padding, value and timestamp."""
SMALLEST_ENTRY_BYTES: Final = 24

UNREADABLE: Final = (OSError, RuntimeError, ValueError, TypeError, struct.error)
"""What reading a cut or damaged file raises; a JSON error and a UTF-8 error are ValueErrors."""

FILE_NAME: Final = re.compile(
    r"(?P<kind>counter|summary|histogram|gauge_(?P<mode>[a-z]+))_(?P<pid>\d+)"
)

_in_memory: "weakref.WeakValueDictionary[str, ReservedFile]" = weakref.WeakValueDictionary()
"""The files of this process that have no room on the disk, by path."""

_skipped: set[Path] = set()
"""The unreadable files that were logged."""


def install() -> None:
    """Let prometheus-client use `ReservedFile`; it has no setting for its class of files.

    To be called before the first collector is created. It has no effect in a process that does not
    share its metrics.
    """
    values.MmapedDict = ReservedFile  # type: ignore[attr-defined, assignment]


class ReservedFile(MmapedDict):
    """A mapped file whose blocks are reserved; without room it is memory of this process.

    Like the class that it replaces it is not thread-safe: its caller holds a lock.
    """

    def __init__(self, filename: str) -> None:
        self._fname = filename
        self._descriptor: int | None = None
        self._retry_at: float | None = None
        self._is_logged = False
        self._reason = ""
        # A process with the same id may have left a file. Its counters go on, if it is readable.
        kept, positions = _content(Path(filename))
        self._positions = positions
        self._used = len(kept)
        self._capacity = FIRST_BYTES
        self._map(kept, self._used)

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if self._retry_at is not None:
            self._leave_memory(self._retry_at)
        super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def snapshot(self) -> bytes:
        """What the file would hold."""
        return bytes(self._m[: self._used])

    def close(self) -> None:
        _in_memory.pop(self._fname, None)
        self._m.close()
        self._close_file()

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _init_value(self, key: str) -> None:
        needed = self._used + len(key.encode()) + ENTRY_BYTES
        if needed > self._capacity:
            self._map(self.snapshot(), needed)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _map(self, content: bytes, needed_bytes: int) -> None:
        """Map `content` with room for `needed_bytes`: in the file, else in memory."""
        while self._capacity < needed_bytes:
            self._capacity *= 2
        try:
            mapped = self._reserved()
        except OSError as error:
            mapped = mmap.mmap(-1, self._capacity)
            self._retry_at = time.monotonic() + RETRY_SECONDS
            self._reason = os.strerror(error.errno) if error.errno else str(error)
            _in_memory[self._fname] = self
        else:
            if self._is_logged:
                log.warning("metrics_shared_again", file=self._fname)
            self._retry_at, self._is_logged = None, False
            _in_memory.pop(self._fname, None)
        # Another process may read meanwhile: it reads no entry before the header counts it.
        mapped[HEADER_BYTES : len(content)] = content[HEADER_BYTES:]
        mapped[:HEADER_BYTES] = content[:HEADER_BYTES]
        self._m = mapped

    def _reserved(self) -> mmap.mmap:
        """The file's map, with every block of it reserved.

        Raises:
            OSError: there is no room for it, or no folder.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self._fname, os.O_RDWR | os.O_CREAT, 0o666)
        descriptor = self._descriptor
        old_bytes = os.fstat(descriptor).st_size
        try:
            _reserve(descriptor, self._capacity)
            return mmap.mmap(descriptor, self._capacity)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, old_bytes)
                if not old_bytes:  # an empty file would be reported as damaged
                    os.unlink(self._fname)
            self._close_file()
            raise

    def _leave_memory(self, retry_at: float) -> None:
        if time.monotonic() >= retry_at:
            self._map(self.snapshot(), self._used)
        # Values are created while modules are imported, before there is a log.
        if self._retry_at is not None and not self._is_logged and logging.getLogger().hasHandlers():
            self._is_logged = True
            log.warning("metrics_not_shared", file=self._fname, reason=self._reason)


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Allocate every block of a file.

    Raises:
        OSError: there is no room.
    """
    if sys.platform == "darwin":  # it has no posix_fallocate
        while (missing := size_bytes - os.fstat(descriptor).st_size) > 0:
            os.pwrite(descriptor, bytes(missing), size_bytes - missing)
    else:
        os.posix_fallocate(descriptor, 0, size_bytes)


def _content(path: Path) -> tuple[bytes, dict[str, int]]:
    """What a file holds up to now, and where each value is; an empty one's if it is unreadable."""
    try:
        entries = _entries(path)
        _parsed(entries)
        positions = {key: position for key, _, _, position in entries}
        with path.open("rb") as file:
            data = file.read()
        used = struct.unpack_from("i", data)[0]
        if used >= HEADER_BYTES:
            return data[:used], positions
    except UNREADABLE:
        pass
    return struct.pack("ii", HEADER_BYTES, 0), {}


def _entries(path: Path) -> list[tuple[str, float, float, int]]:
    """Every entry of a file: its key, value, timestamp and position.

    Raises:
        UNREADABLE: the file is empty, cut or damaged.
    """
    most = path.stat().st_size // SMALLEST_ENTRY_BYTES + 1  # a damaged one might lead in a circle
    found = list(islice(MmapedDict.read_all_values_from_file(str(path)), most + 1))  # type: ignore[no-untyped-call]
    if len(found) > most:
        raise ValueError("more entries than the file has room for")
    return found


class SharedCollector(Collector):
    """What all processes counted that share a folder; unreadable files are skipped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        metrics: dict[str, Metric] = {}
        for path, entries in self._read().items():
            if (name_of_file := FILE_NAME.fullmatch(path.stem)) is None:
                continue
            kind, mode, pid = name_of_file["kind"].split("_")[0], *name_of_file.group("mode", "pid")
            for (name, sample, labels, help_text), value, timestamp in entries:
                metric = metrics.setdefault(name, Metric(name, help_text, kind))
                pairs = tuple(sorted(labels.items()))
                if kind == "gauge":
                    metric._multiprocess_mode = mode  # type: ignore[attr-defined]
                    metric.add_sample(sample, (*pairs, ("pid", pid)), value, timestamp)  # type: ignore[arg-type]
                else:
                    metric.add_sample(sample, pairs, value)  # type: ignore[arg-type]
        yield from multiprocess.MultiProcessCollector._accumulate_metrics(metrics, accumulate=True)  # type: ignore[no-untyped-call]

    def _read(self) -> Mapping[Path, list[tuple[Any, float, float]]]:
        """Every readable file's entries, and those that this process keeps in memory."""
        read = {}
        for path in sorted(self._folder.glob("*.db")):
            try:
                read[path] = _parsed(_entries(path))
            except FileNotFoundError:  # its process ended meanwhile
                continue
            except UNREADABLE as error:
                if path not in _skipped:
                    _skipped.add(path)
                    log.warning("metrics_file_skipped", file=str(path), reason=repr(error))
        for name, file in list(_in_memory.items()):
            if Path(name).parent == self._folder:
                with contextlib.suppress(*UNREADABLE):  # it was closed meanwhile
                    read[Path(name)] = _parsed(_entries_of(file))
        return read


def _parsed(entries: list[tuple[str, float, float, int]]) -> list[tuple[Any, float, float]]:
    """Entries with their keys decoded.

    Raises:
        ValueError: a key is none that prometheus-client wrote.
    """
    parsed = []
    for key, value, timestamp, _ in entries:
        name, sample, labels, help_text = json.loads(key)
        parsed.append(((name, sample, labels, help_text), value, timestamp))
    return parsed


def _entries_of(file: ReservedFile) -> list[tuple[str, float, float, int]]:
    return list(file._read_all_values())  # type: ignore[no-untyped-call]
