#!/bin/sh
# Restores a logical backup into a database that does not exist yet.
#
#   restore-dump.sh FILE DATABASE [OWNER SERVICE]
#
# The connection is set by PostgreSQL's own variables: PGHOST, PGPORT, PGUSER, PGPASSFILE and others.
# The user must be a superuser, or a role that may create databases and roles. OWNER and SERVICE are
# the roles of the backup. They are created without a password if they do not exist.
set -eu
[ $# -eq 2 ] || [ $# -eq 4 ] || {
    echo "usage: restore-dump.sh FILE DATABASE [OWNER SERVICE]" >&2
    exit 2
}
file=$1 database=$2 owner=${3:-segmentql_owner} service=${4:-segmentql_service}

# Before anything is created: the file exists, and is a backup.
pg_restore --list "$file" > /dev/null
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres \
    --set=owner="$owner" --set=service="$service" --set=database="$database" <<'SQL'
SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY[:'owner', :'service']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
-- A user that is not a superuser needs this to give the database and its tables to the owner.
SELECT format('GRANT %I TO CURRENT_USER', :'owner') WHERE NOT pg_has_role(:'owner', 'SET') \gexec
CREATE DATABASE :"database" OWNER :"owner" TEMPLATE template0 ENCODING 'UTF8';
SQL
# In one transaction: the database has everything or nothing.
pg_restore --exit-on-error --single-transaction --dbname="$database" "$file"
# Without warnings about system tables, which only a superuser may analyze.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$database" \
    --command="SET client_min_messages = error" --command=ANALYZE
echo "restored $file into the database $database"
