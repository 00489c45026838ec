"""Execution: documents are parsed and compiled once, and operations run from their plan."""
