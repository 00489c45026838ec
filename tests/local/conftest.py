"""Folders that the servers' account can enter, which pytest's own do not allow if root runs it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from segmentql.local.accounts import Account, server_account


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that every account may enter."""
    folder = Path(tempfile.mkdtemp(prefix="segmentql-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def account() -> Account | None:
    """Return the account that servers run as: None for an ordinary user."""
    return server_account()
