"""`segmentql schema`: prints the GraphQL schema."""

import click


@click.command()
def schema() -> None:
    """Print the schema in GraphQL's schema definition language."""
    from segmentql.schema import make_schema  # noqa: PLC0415 - takes a moment to build

    click.echo(make_schema().as_str())
