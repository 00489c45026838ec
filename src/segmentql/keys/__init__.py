"""API keys: who is let in, and what they may do.

A key is `sgql_<id>_<secret>`. `service.py` makes, lists and revokes them; `ring.py` is what one
process knows of them, so that a request with a known key costs no statement.
"""
