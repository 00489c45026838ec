"""The output and the exit code of `segmentql import`."""

from typing import Any, Final

import click

REJECTED: Final = {"MALFORMED", "OUT_OF_RANGE"}
EXIT_CODE_BY_STATUS: Final = {
    "COMPLETED": 0,
    "VALIDATED": 0,
    "HELD": 4,
    "REFUSED": 5,
    "FAILED": 1,
    "CANCELLED": 1,
}
MAX_VALUE_CHARACTERS: Final = 40
REJECTED_EXIT_CODE: Final = 3
TITLE_BY_STATUS: Final = {
    "COMPLETED": "The import {id} was completed.",
    "VALIDATED": "The dry run {id} is done. Nothing was changed. The expected outcomes are:",
    "HELD": "The import {id} is held. Nothing was changed. The expected outcomes are:",
    "REFUSED": "The import {id} was refused. Nothing was changed.",
    "FAILED": "The import {id} failed. What was applied stays.",
    "CANCELLED": "The import {id} was cancelled. What was applied stays.",
}


def print_summary(record: Any, *, err: bool) -> None:
    """Print the status, the counts of rows and the first rejected rows.

    Args:
        record: The import.
        err: Whether standard output is used for the result.
    """
    click.echo(TITLE_BY_STATUS[record["status"]].format(id=record["id"]), err=err)
    if record["counts"]:
        rows = [(item["outcome"], item["count"]) for item in record["counts"]]
        rows.append(("all rows", sum(count for _, count in rows)))
        width = max(len(f"{count:,}") for _, count in rows)
        for label, count in rows:
            click.echo(f"  {label:<12}  {count:>{width},}", err=err)
    if record["removals"] and record["status"] in {"VALIDATED", "HELD"}:
        click.echo(f"{record['removals']:,} members would be removed.", err=err)
    elif record["removals"]:
        click.echo(f"{record['removals']:,} members were removed.", err=err)
    rejected = _rejected(record)
    if rejected:
        click.echo("Rejected rows:", err=err)
        for row in record["rejections"]:
            # repr() escapes control characters, which could change the terminal.
            value = repr(row["value"][:MAX_VALUE_CHARACTERS])
            click.echo(f"  line {row['line']}, {value}: {row['message']}", err=err)
        if rejected > len(record["rejections"]):
            click.echo(f"  and {rejected - len(record['rejections']):,} more", err=err)


def print_advice(record: Any, *, with_result: bool) -> None:
    """Print why the import stopped, and what to do next, to standard error."""
    import_id, status = record["id"], record["status"]
    if record["failure"]:
        label = "Held" if status in {"HELD", "VALIDATED"} else "Error"
        click.echo(f"{label}: {record['failure'].rstrip('.')}.", err=True)
    if status in {"HELD", "VALIDATED"}:
        option, field = "", ""
        if status == "HELD" or record["failure"]:
            removals = record["removals"] or 0
            option, field = f" --allow-removals {removals}", f" and allowRemovals {removals}"
        click.echo(
            f"To apply it, run segmentql import --apply {import_id}{option} within 7 days, or call"
            f" applyImport with this id{field}.",
            err=True,
        )
    elif record["rows"] is not None and not with_result:
        click.echo(
            f'The outcome of each row: query import(id: "{import_id}") {{ resultUrl }}, or use'
            " --result FILE.",
            err=True,
        )


def exit_code(record: Any) -> int:
    """Return the exit code of the command."""
    if record["status"] == "VALIDATED" and record["failure"]:
        return EXIT_CODE_BY_STATUS["HELD"]
    code = EXIT_CODE_BY_STATUS[record["status"]]
    return REJECTED_EXIT_CODE if code == 0 and _rejected(record) else code


def _rejected(record: Any) -> int:
    return sum(item["count"] for item in record["counts"] if item["outcome"] in REJECTED)
