"""Memberships: which user is in which segment.

- `service.py`: manual changes, and reads.
- `expiry.py`: the ends of memberships by TTL and by the deletion of a segment.
- `actors.py`: the background jobs that record those ends.
"""
