"""Shared metrics survive a full disk and damaged files."""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import structlog
from starlette.responses import Response

from segmentql import shared_metrics
from segmentql.adapters.metrics_endpoint import metrics_response
from segmentql.cli.serve import _shared_metrics_dir
from segmentql.settings import METRICS_VARIABLE, Settings, child_environment
from segmentql.shared_metrics import INITIAL_BYTES, ReservedFile
from tests.conftest import environment
from tests.disks import KINDS, small_disk

COUNTED = b'segmentql_joins_total{cause="MANUAL"} 5.0\n'

COUNT = """
from segmentql import metrics
metrics.JOINS.labels("MANUAL").inc(5)
"""

# Values with long labels need more than the first 64 KiB.
COUNT_MUCH = """
for number in range(400):
    metrics.JOINS.labels(f"{number:01000}").inc()
"""

EXPOSE = """
import sys
import tempfile
from pathlib import Path
from segmentql import logs
from segmentql.adapters.metrics_endpoint import metrics_response
from segmentql.settings import Settings
settings = Settings(_env_file=None)
logs.configure(settings)
metrics.JOINS.labels("MANUAL").inc(0)
sys.stdout.buffer.write(metrics_response(settings).body)
"""


def count(folder: Path, settings: Settings, script: str = COUNT) -> None:
    done = run(folder, settings, script)
    assert done.returncode == 0, done.stderr


def run(
    folder: Path, settings: Settings, script: str, *, file_bytes: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    def limit() -> None:
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment(settings, PROMETHEUS_MULTIPROC_DIR=str(folder)),
        capture_output=True,
        check=False,
        preexec_fn=limit,
    )


def values_of(file: ReservedFile) -> list[tuple[str, float]]:
    return [(key, value) for key, value, _ in file.read_all_values()]  # type: ignore[no-untyped-call]


def exposed(settings: Settings, folder: Path) -> bytes:
    response: Response = metrics_response(settings.model_copy(update={"metrics_dir": folder}))
    return bytes(response.body)


@pytest.mark.slow  # mounts file systems and starts processes
@pytest.mark.parametrize("kind", KINDS)
def test_full_disk_does_not_end_a_counting_process(kind: str, settings: Settings) -> None:
    with small_disk(kind, megabytes=16) as disk:
        folder = disk.path / "metrics"
        folder.mkdir()
        disk.fill()
        done = run(folder, settings, COUNT + EXPOSE)
    assert done.returncode == 0, done.stderr
    assert COUNTED in done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    warnings = [line for line in lines if line["event"] == "metrics_not_shared"]
    assert warnings
    assert all(line["reason"] == "No space left on device" for line in warnings)
    files = [line["file"] for line in warnings]
    assert len(files) == len(set(files))


@pytest.mark.slow  # mounts file systems and starts processes
@pytest.mark.parametrize("kind", KINDS)
def test_disk_that_fills_up_later_does_not_end_the_process(kind: str, settings: Settings) -> None:
    fill = "\nimport os\nfrom tests.disks import Disk\nDisk(Path(os.environ['DISK'])).fill()\n"
    with small_disk(kind, megabytes=16) as disk:
        script = f"import os\nos.environ['DISK'] = {str(disk.path)!r}\nfrom pathlib import Path\n"
        done = run(disk.path, settings, script + COUNT + fill + COUNT_MUCH + COUNT + EXPOSE)
        others_view = exposed(settings, disk.path)
    assert done.returncode == 0, done.stderr
    assert COUNTED.replace(b"5.0", b"10.0") in done.stdout
    assert done.stdout.count(b"segmentql_joins_total{") == 401
    # Other processes see the values from before the file could not grow.
    assert COUNTED in others_view


@pytest.mark.parametrize(("file_bytes", "files"), [(INITIAL_BYTES - 1, 0), (INITIAL_BYTES, 4)])
def test_values_without_room_stay_in_memory(
    settings: Settings, tmp_path: Path, file_bytes: int, files: int
) -> None:
    """A limit on the file size stands in for a full disk, because it needs no privileges."""
    done = run(tmp_path, settings, COUNT + COUNT_MUCH + EXPOSE, file_bytes=file_bytes)
    assert done.returncode == 0, done.stderr
    assert COUNTED in done.stdout
    assert done.stdout.count(b"segmentql_joins_total{") == 401
    assert b'"reason": "File too large"' in done.stderr
    file_sizes = sorted(path.stat().st_size for path in tmp_path.iterdir())
    assert file_sizes == [INITIAL_BYTES] * files


def test_values_move_to_their_file_when_space_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_metrics, "RETRY_SECONDS", 0)
    folder = tmp_path / "missing"
    file = ReservedFile(str(folder / "counter_1.db"))
    keys = [json.dumps(["a", "a", {"n": f"{number:01000}"}, ""]) for number in range(100)]
    with structlog.testing.capture_logs() as lines:
        for key in keys:
            file.write_value(key, 1.0, 0.0)
        folder.mkdir()
        file.write_value(keys[0], 2.0, 0.0)
    assert [line["event"] for line in lines] == ["metrics_not_shared", "metrics_shared_again"]
    read = values_of(file)
    assert read == [(keys[0], 2.0), *((key, 1.0) for key in keys[1:])]
    assert (folder / "counter_1.db").stat().st_size == 2 * INITIAL_BYTES
    file.close()
    reopened = ReservedFile(str(folder / "counter_1.db"))
    assert values_of(reopened) == read
    reopened.close()


def test_every_block_of_a_new_file_is_allocated(tmp_path: Path) -> None:
    file = ReservedFile(str(tmp_path / "counter_1.db"))
    assert (tmp_path / "counter_1.db").stat().st_blocks * 512 >= INITIAL_BYTES
    file.close()


@pytest.mark.parametrize("kept_bytes", [0, 3, 8, 50, 300])
def test_truncated_file_is_skipped_and_logged_once(
    settings: Settings, tmp_path: Path, kept_bytes: int
) -> None:
    count(tmp_path, settings)
    cut = tmp_path / "counter_1.db"
    (intact,) = tmp_path.glob("counter_*.db")
    cut.write_bytes(intact.read_bytes()[:kept_bytes])
    with structlog.testing.capture_logs() as lines:
        assert COUNTED in exposed(settings, tmp_path)
        assert COUNTED in exposed(settings, tmp_path)
    assert [(line["event"], line["file"]) for line in lines] == [("metrics_file_skipped", str(cut))]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 4096,
        b"\x40\0\0\0" + bytes(4092),
        b"\x40\0\0\0\0\0\0\0\xf0\xff\xff\xff" + bytes(99),
    ],
    ids=["ones", "zeros", "circle"],
)
def test_damaged_file_is_skipped(settings: Settings, tmp_path: Path, content: bytes) -> None:
    count(tmp_path, settings)
    (tmp_path / "histogram_1.db").write_bytes(content)
    assert COUNTED in exposed(settings, tmp_path)


def test_process_recreates_its_own_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "counter_1.db"
    path.write_bytes(b"\x40\0\0\0")
    file = ReservedFile(str(path))
    file.write_value("[]", 1.0, 0.0)
    assert values_of(file) == [("[]", 1.0)]
    file.close()


def test_other_files_in_the_folder_are_ignored(settings: Settings, tmp_path: Path) -> None:
    count(tmp_path, settings)
    (tmp_path / "gauge.db").write_bytes(b"")
    (tmp_path / "counter_1.db").mkdir()
    assert COUNTED in exposed(settings, tmp_path)


def test_without_a_metrics_folder_each_process_reports_alone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with structlog.testing.capture_logs() as lines, _shared_metrics_dir(settings):
        assert METRICS_VARIABLE not in child_environment({})
    assert [line["event"] for line in lines] == ["metrics_not_shared"]
