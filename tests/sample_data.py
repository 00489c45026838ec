"""Sample rows for requests of every kind."""

from typing import Final

SAMPLE_DATA: Final = """
    INSERT INTO users (id, created_at, key)
    VALUES (1, '2024-01-01Z', 'one'), (2, '2024-01-01Z', 'two'), (3, '2024-01-01Z', NULL);
    INSERT INTO segments (slug, name, created_at, updated_at)
    SELECT slug, 'Segment ' || slug, '2024-01-01Z', '2024-01-01Z'
    FROM unnest(ARRAY['A', 'B', 'GONE']) AS slug;
    INSERT INTO memberships (user_id, segment_id, joined_at, updated_at, expires_at, cause)
    VALUES (1, 1, '2024-02-01Z', '2024-02-01Z', NULL, 'MANUAL'),
        (1, 2, '2024-02-02Z', '2024-02-02Z', '2024-03-01Z', 'MANUAL'),
        (1, 3, '2024-02-03Z', '2024-02-03Z', NULL, 'ROLLOUT'),
        (2, 1, '2024-02-01Z', '2024-02-01Z', '2040-01-01Z', 'MANUAL');
    UPDATE segments SET deleted_at = '2024-04-01Z' WHERE slug = 'GONE';
    INSERT INTO reports (user_id, year, month, status, created_at, next_attempt_at)
    VALUES (1, 2024, 2, 'QUEUED', '2024-03-01Z', '2024-03-01Z');
"""
"""Three users, two of them with keys, memberships that are active, expired or in a deleted segment,
and a report."""
