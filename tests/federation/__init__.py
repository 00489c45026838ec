"""Tests of the subgraph at `/federation`."""
