"""Metrics that several processes share in files. Full disks and damaged files are handled.

prometheus-client maps sparse files. If the disk is full, the first write to a page ends the process
with SIGBUS. This module reserves the blocks of a file before it maps the file. Without space, the
values stay in the memory of their process until there is space for the file.
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

INITIAL_BYTES: Final = 65_536
"""The size of a new file. A full file doubles its size."""

RETRY_SECONDS: Final = 2
"""The interval at which values in memory are moved to their file, if it has space."""

HEADER_BYTES: Final = 8
MAX_ENTRY_OVERHEAD_BYTES: Final = 32
"""The maximum size of an entry without its key: length, padding, value and timestamp."""
MIN_ENTRY_BYTES: Final = 24

UNREADABLE: Final = (OSError, RuntimeError, ValueError, TypeError, struct.error)
"""The errors of reading a truncated or damaged file. JSON and UTF-8 errors are ValueErrors."""

FILE_NAME: Final = re.compile(
    r"(?P<kind>counter|summary|histogram|gauge_(?P<mode>[a-z]+))_(?P<pid>\d+)"
)

_in_memory: "weakref.WeakValueDictionary[str, ReservedFile]" = weakref.WeakValueDictionary()
"""The files of this process that have no space on the disk, by path."""

_skipped: set[Path] = set()
"""The unreadable files that are already logged."""


def install() -> None:
    """Make prometheus-client use `ReservedFile`. It has no setting for this class.

    Must be called before the first collector is created. It has no effect in a process that does
    not share its metrics.
    """
    values.MmapedDict = ReservedFile  # type: ignore[attr-defined, assignment]


class ReservedFile(MmapedDict):
    """A mapped file with reserved blocks, or memory of this process if the disk has no space.

    It is not thread-safe, like the class that it replaces. Callers hold a lock.
    """

    def __init__(self, filename: str) -> None:
        self._fname = filename
        self._descriptor: int | None = None
        self._retry_at: float | None = None
        self._is_logged = False
        self._reason = ""
        # An earlier process with the same id may have left a file. If readable, it is continued.
        content, positions = _read_content(Path(filename))
        self._positions = positions
        self._used = len(content)
        self._capacity = INITIAL_BYTES
        self._map(content, self._used)

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        if self._retry_at is not None:
            self._retry_file(self._retry_at)
        super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def snapshot(self) -> bytes:
        """Return the used part of the file, or of the memory in its place."""
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
        needed = self._used + len(key.encode()) + MAX_ENTRY_OVERHEAD_BYTES
        if needed > self._capacity:
            self._map(self.snapshot(), needed)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _map(self, content: bytes, needed_bytes: int) -> None:
        """Map `content` with space for `needed_bytes`: in the file, or else in memory."""
        while self._capacity < needed_bytes:
            self._capacity *= 2
        try:
            mapped = self._map_file()
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
        # Entries before the header: another process reads only entries that the header counts.
        mapped[HEADER_BYTES : len(content)] = content[HEADER_BYTES:]
        mapped[:HEADER_BYTES] = content[:HEADER_BYTES]
        self._m = mapped

    def _map_file(self) -> mmap.mmap:
        """Return the mapped file with all of its blocks reserved.

        Raises:
            OSError: the disk has no space, or the folder does not exist.
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

    def _retry_file(self, retry_at: float) -> None:
        if time.monotonic() >= retry_at:
            self._map(self.snapshot(), self._used)
        # Values are created during imports, before logging is configured.
        if self._retry_at is not None and not self._is_logged and logging.getLogger().hasHandlers():
            self._is_logged = True
            log.warning("metrics_not_shared", file=self._fname, reason=self._reason)


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Allocate every block of a file.

    Raises:
        OSError: the disk has no space.
    """
    if sys.platform == "darwin":  # macOS has no posix_fallocate
        while (missing := size_bytes - os.fstat(descriptor).st_size) > 0:
            os.pwrite(descriptor, bytes(missing), size_bytes - missing)
    else:
        os.posix_fallocate(descriptor, 0, size_bytes)


def _read_content(path: Path) -> tuple[bytes, dict[str, int]]:
    """Return a file's content and the position of each value; those of a new file on errors."""
    try:
        entries = _read_entries(path)
        _parse_keys(entries)
        positions = {key: position for key, _, _, position in entries}
        with path.open("rb") as file:
            data = file.read()
        used = struct.unpack_from("i", data)[0]
        if used >= HEADER_BYTES:
            return data[:used], positions
    except UNREADABLE:
        pass
    return struct.pack("ii", HEADER_BYTES, 0), {}


def _read_entries(path: Path) -> list[tuple[str, float, float, int]]:
    """Return the entries of a file: key, value, timestamp and position.

    Raises:
        UNREADABLE: the file is empty, truncated or damaged.
    """
    max_entries = path.stat().st_size // MIN_ENTRY_BYTES + 1  # a damaged file can loop
    entries = list(islice(MmapedDict.read_all_values_from_file(str(path)), max_entries + 1))  # type: ignore[no-untyped-call]
    if len(entries) > max_entries:
        raise ValueError("the file has more entries than its size allows")
    return entries


class SharedCollector(Collector):
    """The metrics of all processes that share a folder. Unreadable files are skipped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        metrics: dict[str, Metric] = {}
        for path, entries in self._read().items():
            if (match := FILE_NAME.fullmatch(path.stem)) is None:
                continue
            kind, mode, pid = match["kind"].split("_")[0], *match.group("mode", "pid")
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
        """Return the entries of all readable files, and those in this process' memory."""
        read = {}
        for path in sorted(self._folder.glob("*.db")):
            try:
                read[path] = _parse_keys(_read_entries(path))
            except FileNotFoundError:  # its process has just ended
                continue
            except UNREADABLE as error:
                if path not in _skipped:
                    _skipped.add(path)
                    log.warning("metrics_file_skipped", file=str(path), reason=repr(error))
        for name, file in list(_in_memory.items()):
            if Path(name).parent == self._folder:
                with contextlib.suppress(*UNREADABLE):  # another thread may have closed it
                    read[Path(name)] = _parse_keys(_memory_entries(file))
        return read


def _parse_keys(entries: list[tuple[str, float, float, int]]) -> list[tuple[Any, float, float]]:
    """Return entries with decoded keys.

    Raises:
        ValueError: prometheus-client did not write a key.
    """
    parsed = []
    for key, value, timestamp, _ in entries:
        name, sample, labels, help_text = json.loads(key)
        parsed.append(((name, sample, labels, help_text), value, timestamp))
    return parsed


def _memory_entries(file: ReservedFile) -> list[tuple[str, float, float, int]]:
    return list(file._read_all_values())  # type: ignore[no-untyped-call]
