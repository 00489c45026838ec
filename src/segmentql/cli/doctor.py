"""`segmentql doctor`: checks the installation and suggests fixes."""

import asyncio
import sys
from pathlib import Path

import click

from segmentql.cli.exits import exits
from segmentql.cli.settings import data_dir_option, settings_or_running
from segmentql.doctor import Finding, Verdict, examine
from segmentql.settings import Settings

COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}


@click.command(epilog=exits("doctor"))
@data_dir_option
def doctor(data_dir: Path) -> None:
    """Check every connection, version, migration and clock.

    The checks connect as the service does. For each problem they suggest a fix.
    """
    findings = asyncio.run(_run_checks(settings_or_running(data_dir, with_store=True)))
    if any(finding.verdict is Verdict.FAILED for finding in findings):
        sys.exit(1)


async def _run_checks(settings: Settings) -> list[Finding]:
    findings = []
    async for finding in examine(settings):
        verdict = click.style(f"{finding.verdict.value:8}", fg=COLOURS[finding.verdict])
        click.echo(f"{verdict} {finding.check}: {finding.observation}")
        if finding.remedy:
            click.echo(f"{'':8} -> {finding.remedy}")
        findings.append(finding)
    return findings
