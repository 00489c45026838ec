"""`python -m segmentql` is `segmentql`."""

from segmentql.cli import main

main()
