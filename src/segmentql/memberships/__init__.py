"""Memberships: who is in which segment, how that changes by hand, and how it ends by itself.

`service.py` changes and reads them, `ends.py` is all about how a membership ends without anybody
asking: its TTL, or the deletion of its segment.
"""
