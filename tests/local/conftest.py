"""Folders that the servers' account can enter, and a supervisor.

If root runs pytest, other accounts cannot enter its own temporary folders.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from segmentql.local.accounts import Account, server_account
from segmentql.local.supervisor import Supervisor
from tests.local.programs import QUICK


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


@pytest.fixture
async def messages() -> list[str]:
    """The messages that `supervisor` printed."""
    return []


@pytest.fixture
async def supervisor(messages: list[str]) -> AsyncIterator[Supervisor]:
    """Create a supervisor with short pauses, and stop its children at the end."""
    created = Supervisor(lambda step: messages.append(str(step)), QUICK)
    yield created
    await created.stop()
