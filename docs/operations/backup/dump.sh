#!/bin/sh
# Writes a logical backup of a database into a new file, and reads it once completely.
#
#   dump.sh DATABASE FILE
#
# The connection is set by PostgreSQL's own variables: PGHOST, PGPORT, PGUSER, PGPASSFILE and others.
# The role that owns the tables can run this. The file has the tables, triggers, functions, sequences
# and privileges, but no roles and no passwords.
set -eu
[ $# -eq 2 ] || { echo "usage: dump.sh DATABASE FILE" >&2; exit 2; }
database=$1 file=$2
[ ! -e "$file" ] || { echo "dump.sh: $file exists" >&2; exit 1; }

umask 077
trap 'rm -f "$file.part"' EXIT
pg_dump --format=custom --file="$file.part" --dbname="$database"
pg_restore --file=/dev/null "$file.part"
mv "$file.part" "$file"
echo "wrote $file"
