"""How commands in another terminal find what `segmentql up` runs: a private file in its folder."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from segmentql.local.data_dir import SHARED_FOLDER, DataFolder, write_private
from segmentql.settings import is_set

FILE = "settings.json"


@contextlib.contextmanager
def published_settings(data: DataFolder, settings: Mapping[str, str]) -> Iterator[None]:
    """Have `running_settings` say these, by field name, until the exit."""
    file = data.run / FILE
    write_private(file, json.dumps(dict(settings), indent=2) + "\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def running_settings(data_dir: Path) -> dict[str, str]:
    """What the `segmentql up` of a folder runs, without what the environment says otherwise."""
    path = data_dir.resolve()
    stand_in = SHARED_FOLDER / hashlib.sha256(bytes(path)).hexdigest()[:16]
    for folder in (path, stand_in):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            settings = json.loads((folder / "run" / FILE).read_text())
            return {name: value for name, value in settings.items() if not is_set(name)}
    return {}
