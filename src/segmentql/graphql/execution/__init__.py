"""Execution: documents are parsed and compiled once, and plans execute their operations."""
