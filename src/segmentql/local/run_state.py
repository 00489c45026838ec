"""The private file through which other commands find what `segmentql up` runs."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from segmentql.local.data_dir import DataFolder, fallback_folder, write_private
from segmentql.settings import is_set

FILE_NAME = "settings.json"


@contextlib.contextmanager
def published_settings(data: DataFolder, settings: Mapping[str, str]) -> Iterator[None]:
    """Publish settings, by field name, for `running_settings` until the exit."""
    file = data.run_folder / FILE_NAME
    write_private(file, json.dumps(dict(settings), indent=2) + "\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def running_settings(data_dir: Path) -> dict[str, str]:
    """Return the settings of the `segmentql up` in a data folder, or an empty dict.

    Settings that the environment sets are left out, because they take precedence.
    """
    path = data_dir.resolve()
    for folder in (path, fallback_folder(path)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            settings = json.loads((folder / "run" / FILE_NAME).read_text())
            return {name: value for name, value in settings.items() if not is_set(name)}
    return {}
