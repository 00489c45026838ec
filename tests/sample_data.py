"""Sample rows for requests of every kind."""

from typing import Final

INSERT_IMPORT: Final = """
    INSERT INTO imports (segment_id, status, mode, options, source, created_at, deadline_at,
        finished_at, row_count, counts, result_key, needs_cleanup)
    SELECT s.id, status, 'ADD', '{{
        "identity": "ID", "column": null, "column_number": null, "header": "AUTO",
        "delimiter": "AUTO", "ttl_seconds": null, "expires_at": null, "on_existing": "EXTEND",
        "on_excluded": "SKIP", "on_unknown_user": "STORE", "exclude": true, "max_rejected": 0,
        "max_removed_percent": 20, "allow_empty": false, "dry_run": false
    }}', '{{"file_name": null, "size_bytes": 2, "sha256": null}}', '2024-03-01Z',
        CASE status WHEN 'VALIDATED' THEN '2100-01-01Z'::timestamptz END,
        CASE status WHEN 'COMPLETED' THEN '2024-03-01Z'::timestamptz END,
        1, '{{"JOINED": 1}}', CASE status WHEN 'COMPLETED' THEN 'imports/results/1.csv' END, false
    FROM segments s CROSS JOIN (VALUES ('{status}'::import_status)) AS state (status)
    WHERE s.slug = '{slug}';
"""
"""Inserts an import into each segment with a slug, VALIDATED or COMPLETED."""

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
    INSERT INTO exports (segment_id, status, as_of, cursor, gzip, created_at, next_attempt_at)
    VALUES (1, 'QUEUED', '2024-03-01Z', 'chg_MDo=', false, '2024-03-01Z', '2024-03-01Z');
""" + INSERT_IMPORT.format(slug="A", status="COMPLETED")
"""Three users, two of them with keys, memberships that are active, expired or in a deleted segment,
a report, an export and an import."""
