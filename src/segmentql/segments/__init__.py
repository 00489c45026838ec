"""Segments: named sets of users."""
