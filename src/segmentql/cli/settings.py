"""Reads the settings for a command, which ends with every problem named where there are any."""

from typing import Any

import click

from segmentql.errors import SettingsError
from segmentql.settings import Settings, load_settings


def settings_or_exit(**overrides: Any) -> Settings:
    """Read the settings; exit with status 1 and a line for each that is missing or wrong."""
    try:
        return load_settings(**overrides)
    except SettingsError as error:
        problems = "\n".join(f"  {problem}" for problem in error.problems)
        raise click.ClickException(
            f"The settings are not complete:\n{problems}\n"
            "Set them in the environment or in .env; .env.example has them all.\n"
            "`segmentql up` needs none of them."
        ) from None
