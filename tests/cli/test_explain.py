"""`segmentql explain` prints the explanation of the API."""

import asyncio
import sys

import pytest

from segmentql.settings import Settings
from tests.conftest import PATIENCE_SECONDS, Api, environment
from tests.explain.operations import explain
from tests.operations import create_user, make_segments, update_user_segments


async def run(settings: Settings, *arguments: str) -> tuple[int | None, str, str]:
    """Return the exit code, the output and the error output of `segmentql explain`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "segmentql", "explain", *arguments),
        env=environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.slow  # each command starts an interpreter
async def test_command_prints_the_reason_and_the_steps(api: Api, settings: Settings) -> None:
    await make_segments(api, "A")
    await update_user_segments(api, 7, add=["A"])
    found = await explain(api)
    code, output, errors = await run(settings, "7", "A")
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[:3] == ['User 7 is in "A": ADDED_BY_HAND', found["summary"], ""]
    assert lines[3:] == [f"yes  {step['check']:<16}  {step['detail']}" for step in found["steps"]]
    code, output, errors = await run(settings, "7", "A", "--as-of", "2020-01-01T00:00:00Z")
    assert (code, errors) == (0, "")
    assert output.startswith('User 7 was not in "A": NO_SUCH_SEGMENT\n')


@pytest.mark.slow  # each command starts an interpreter
async def test_command_explains_the_user_with_a_key(api: Api, settings: Settings) -> None:
    await make_segments(api, "A")
    await create_user(api, id="7", key="ada@example.com")
    await update_user_segments(api, "ada@example.com", add=["A"])
    by_id = await run(settings, "7", "A")
    code, output, errors = await run(settings, "--key", "ada@example.com", "A")
    assert (code, errors) == (0, "")
    assert output.startswith('User "ada@example.com" is in "A": ADDED_BY_HAND\n')
    assert output.splitlines()[1:] == by_id[1].splitlines()[1:]
    # With --key, a number is a key as well.
    code, output, errors = await run(settings, "7", "A", "--key")
    assert (code, errors) == (0, "")
    assert output.startswith('User "7" is not in "A": USER_NOT_STORED\nThe user is not stored.\n')


@pytest.mark.slow  # each command starts an interpreter
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0", "A"), "allowed"),
        (("ada@example.com", "A"), "is not a user id; allowed"),
        (("--key", "", "A"), "the key has 0 characters; allowed"),
        (("7", "a b"), "allowed"),
        (("7", "A", "--as-of", "yesterday"), "a time such as"),
        (("7", "A", "--as-of", "2999-01-01T00:00:00Z"), "--as-of is in the future"),
    ],
)
async def test_invalid_arguments_are_rejected(
    settings: Settings, arguments: tuple[str, ...], message: str
) -> None:
    code, output, errors = await run(settings, *arguments)
    assert (code, output) == (2, "")
    assert message in errors
