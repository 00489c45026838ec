-- The privileges of the service's role, applied after every migration. The role owns no tables. It can
-- read history but not write it, because only the triggers do.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {service};
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {service};
GRANT USAGE ON SCHEMA public TO {service};
GRANT SELECT ON history, history_default, alembic_version TO {service};
GRANT SELECT, INSERT, DELETE ON users TO {service};
GRANT SELECT, INSERT, DELETE ON exclusions TO {service};
-- These columns are never updated, but locking a row requires the UPDATE privilege on a column.
GRANT UPDATE (created_at) ON users TO {service};
GRANT UPDATE (excluded_at) ON exclusions TO {service};
GRANT SELECT, INSERT, UPDATE ON deleted_users TO {service};
GRANT SELECT, UPDATE ON id_allocator TO {service};
GRANT SELECT, INSERT ON segments TO {service};
GRANT UPDATE (name, description, version, updated_at, deleted_at, deleted_by, leaves_recorded_at)
    ON segments TO {service};
GRANT SELECT, INSERT, DELETE ON memberships TO {service};
GRANT UPDATE (id, joined_at, updated_at, expires_at, cause, actor) ON memberships TO {service};
GRANT SELECT, INSERT, UPDATE ON rollouts TO {service};
GRANT SELECT, INSERT, UPDATE, DELETE ON rollout_stages TO {service};
-- A rollout pass starts with the last value of the sequence.
GRANT SELECT ON SEQUENCE users_insert_seq TO {service};
GRANT SELECT, INSERT, UPDATE, DELETE ON reports TO {service};
-- Keys are never deleted, and their secret and role are never changed.
GRANT SELECT, INSERT ON api_keys TO {service};
GRANT UPDATE (revoked_at, revoked_by, last_used_at) ON api_keys TO {service};
GRANT SELECT, INSERT, UPDATE ON leases TO {service};
GRANT EXECUTE ON FUNCTION make_history_partitions(date, integer) TO {service};
