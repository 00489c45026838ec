"""Reads the settings for a command, which ends with every problem named where there are any."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from segmentql.errors import SettingsError
from segmentql.local.running import running_settings
from segmentql.settings import Settings, load_settings

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=".segmentql",
    show_default=True,
    help="The data folder of a running `segmentql up`: its servers are used unless set otherwise.",
)


UP = "`segmentql up` needs none of them."
NOTHING_RUNS = (
    "No `segmentql up` runs in {data_dir}. If one runs in another folder, name it with --data-dir."
)


def settings_or_running(data_dir: Path, *, with_store: bool = False) -> Settings:
    """Read the settings; the missing ones come from the `segmentql up` that runs in a folder."""
    try:
        running = running_settings(data_dir)
    except SettingsError as error:  # .env cannot be read
        raise click.ClickException(str(error)) from None
    advice = "" if running else NOTHING_RUNS.format(data_dir=data_dir)
    return _loaded(with_store=with_store, advice=advice, overrides=running)


def settings_or_exit(*, with_store: bool = False, **overrides: Any) -> Settings:
    """Read the settings; exit with status 1 and a line for each that is missing or wrong."""
    return _loaded(with_store=with_store, advice=UP, overrides=overrides)


def _loaded(*, with_store: bool, advice: str, overrides: Mapping[str, Any]) -> Settings:
    try:
        return load_settings(with_store=with_store, **overrides)
    except SettingsError as error:
        problems = "\n".join(f"  {problem}" for problem in error.problems)
        raise click.ClickException(
            f"The settings are not complete:\n{problems}\n"
            f"Set them in the environment or in .env; .env.example has them all.\n{advice}".rstrip()
        ) from None
