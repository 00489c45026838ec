"""Explanations: why a user is or is not in a segment, now or at a time in the past.

`reading.py` reads the facts in one statement, `reasons.py` finds the reason, and `sentences.py`
writes the sentences. `docs/explain.md` has the table from facts to reasons.
"""
