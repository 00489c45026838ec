-- The privileges of the service's role, applied after every migration. The role owns no tables. It
-- can read history but not write it, because only the triggers do.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {service};
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {service};
GRANT USAGE ON SCHEMA public TO {service};
GRANT SELECT ON history, history_default, alembic_version, schema_compatibility TO {service};
GRANT SELECT, INSERT, DELETE ON users TO {service};
GRANT SELECT, INSERT, DELETE ON exclusions TO {service};
-- A key is set once.
GRANT UPDATE (key) ON users TO {service};
-- These columns are never updated, but locking a row requires the UPDATE privilege on a column.
GRANT UPDATE (created_at) ON users TO {service};
GRANT UPDATE (excluded_at) ON exclusions TO {service};
GRANT SELECT, INSERT, UPDATE ON deleted_users TO {service};
GRANT SELECT, UPDATE ON id_allocator TO {service};
GRANT SELECT, INSERT ON segments TO {service};
GRANT UPDATE (name, description, version, updated_at, updated_by, deleted_at, deleted_by,
    deleted_by_api_key_id, leaves_recorded_at) ON segments TO {service};
GRANT SELECT, INSERT, DELETE ON memberships TO {service};
GRANT UPDATE (id, joined_at, updated_at, expires_at, cause, actor, api_key_id, import_id)
    ON memberships TO {service};
GRANT SELECT, INSERT, UPDATE ON rollouts TO {service};
GRANT SELECT, INSERT, UPDATE, DELETE ON rollout_stages TO {service};
-- Triggers write these logs.
GRANT SELECT ON exclusion_log, user_lifetimes TO {service};
-- A key is replaced by null when it is erased.
GRANT UPDATE (key) ON user_lifetimes TO {service};
-- Events are never changed or deleted, passes are never deleted.
GRANT SELECT, INSERT ON rollout_events TO {service};
GRANT SELECT, INSERT, UPDATE ON rollout_passes TO {service};
-- Entries are never changed or deleted, and the database sets their ids and times.
GRANT SELECT, INSERT (actor, api_key_id, request_id, action, target, segment_id, before, after)
    ON audit_log TO {service};
-- A rollout pass starts with the last value of the sequence.
GRANT SELECT ON SEQUENCE users_insert_seq TO {service};
-- The ids of users that are stored by a key.
GRANT USAGE ON SEQUENCE user_key_id_seq TO {service};
-- Functions of the owner drop old history, and write where it begins.
GRANT SELECT ON dropped_history TO {service};
GRANT EXECUTE ON FUNCTION prune_history(timestamptz), drop_history_month(date) TO {service};
-- The settled position of history is at most the last value of the sequence.
GRANT SELECT ON SEQUENCE history_position_seq TO {service};
-- Workers roll up history. The only row of member_count_rollup has its position.
GRANT SELECT, INSERT, UPDATE ON member_count_hours, member_count_seconds TO {service};
GRANT SELECT, UPDATE ON member_count_rollup TO {service};
GRANT SELECT, INSERT, UPDATE, DELETE ON reports, objects_to_delete TO {service};
GRANT SELECT, INSERT, UPDATE, DELETE ON imports, import_rows, import_users, exports TO {service};
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO {service};
-- Documents never change.
GRANT SELECT, INSERT ON documents TO {service};
-- Keys are never deleted, and their secret and role are never changed.
GRANT SELECT, INSERT ON api_keys TO {service};
GRANT UPDATE (revoked_at, revoked_by, last_used_at) ON api_keys TO {service};
GRANT SELECT, INSERT, UPDATE ON leases TO {service};
GRANT EXECUTE ON FUNCTION make_history_partitions(date, integer) TO {service};
