"""Questions before a command deletes something."""

import sys

import click


def is_terminal() -> bool:
    """Return whether a person can answer on standard input."""
    return sys.stdin.isatty()


def confirm(question: str, *, without_terminal: str) -> None:
    """Ask a question on the terminal, and end the command unless the answer is yes.

    Args:
        question: what will be deleted, as a question.
        without_terminal: why the command ends if standard input is not a terminal.

    Raises:
        click.ClickException: standard input is not a terminal.
        click.Abort: the answer is no.
    """
    if not is_terminal():
        raise click.ClickException(f"{without_terminal}: add --yes, or run this in a terminal")
    click.confirm(question, abort=True)
