"""Reads the settings for a command and reports all problems of the settings together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from segmentql.errors import SettingsError
from segmentql.local.run_state import running_settings
from segmentql.settings import Settings, load_settings

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".segmentql",
    show_default=True,
    help="The data folder of a running `segmentql up`, whose servers are used unless settings name"
    " others.",
)


UP_ADVICE = "`segmentql up` needs no settings."
NOT_RUNNING = "No `segmentql up` runs in {data_dir}. If one runs in another folder, set --data-dir."


def settings_or_running(data_dir: Path, *, with_store: bool = False) -> Settings:
    """Read the settings; take missing ones from the `segmentql up` that runs in `data_dir`."""
    try:
        running = running_settings(data_dir)
    except SettingsError as error:  # .env cannot be read
        raise click.ClickException(str(error)) from None
    advice = "" if running else NOT_RUNNING.format(data_dir=data_dir)
    return _load(with_store=with_store, advice=advice, overrides=running)


def settings_or_exit(*, with_store: bool = False, **overrides: Any) -> Settings:
    """Read the settings; exit with status 1 and a line for each missing or invalid one."""
    return _load(with_store=with_store, advice=UP_ADVICE, overrides=overrides)


def _load(*, with_store: bool, advice: str, overrides: Mapping[str, Any]) -> Settings:
    try:
        return load_settings(with_store=with_store, **overrides)
    except SettingsError as error:
        problems = "\n".join(f"  {problem}" for problem in error.problems)
        raise click.ClickException(
            f"Some settings are missing or invalid:\n{problems}\n"
            "Set them in the environment or in .env; .env.example lists all of them.\n"
            f"{advice}".rstrip()
        ) from None
