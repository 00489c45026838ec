#!/bin/sh
# Creates the database and its two roles at the first start of an empty volume: the owner of the
# tables, and the service's role, which owns no tables (docs/database.md).
set -eu

psql --quiet --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv owner_password POSTGRES_OWNER_PASSWORD
\getenv service_password POSTGRES_SERVICE_PASSWORD
CREATE ROLE segmentql_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE segmentql_service LOGIN PASSWORD :'service_password';
CREATE DATABASE segmentql OWNER segmentql_owner;
\connect segmentql
ALTER SCHEMA public OWNER TO segmentql_owner;
SQL
