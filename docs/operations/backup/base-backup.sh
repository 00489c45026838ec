#!/bin/sh
# Writes a physical backup of a whole server into a new folder, and verifies its checksums.
#
#   base-backup.sh FOLDER
#
# The connection is set by PostgreSQL's own variables: PGHOST, PGPORT, PGUSER, PGPASSFILE and others.
# The user must have the attribute REPLICATION. The backup has all databases, roles and passwords.
set -eu
[ $# -eq 1 ] || { echo "usage: base-backup.sh FOLDER" >&2; exit 2; }
folder=${1%/}

fail() {
    echo "base-backup.sh: $1" >&2
    exit 1
}

[ ! -e "$folder" ] || fail "$folder exists"
[ ! -e "$folder.part" ] || fail "$folder.part exists: an earlier run was interrupted. Delete it"

pg_basebackup --pgdata="$folder.part" --checkpoint=fast --wal-method=stream
pg_verifybackup --quiet "$folder.part"
mv "$folder.part" "$folder"
echo "wrote $folder"
