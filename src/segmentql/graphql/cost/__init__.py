"""Limits: the size of a document, the cost and the time of an operation, and scheduling."""
