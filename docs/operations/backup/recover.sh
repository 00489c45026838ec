#!/bin/sh
# Copies a physical backup into a new data directory, which recovers to a time when it is started.
#
#   recover.sh BACKUP ARCHIVE DATA_DIRECTORY TIME
#
# TIME is a time with its zone, such as '2026-11-28 02:00:00+00', or 'latest' for the end of the
# archive. Run this as the account of PostgreSQL, and start PostgreSQL with the data directory. The
# server does not write to the archive, so that this can be repeated with another time.
set -eu
[ $# -eq 4 ] || { echo "usage: recover.sh BACKUP ARCHIVE DATA_DIRECTORY TIME" >&2; exit 2; }
backup=$1 archive=$2 data=$3 time=$4
[ ! -e "$data" ] || { echo "recover.sh: $data exists" >&2; exit 1; }
[ "$time" != latest ] || time=
[ -d "$archive" ] || { echo "recover.sh: $archive is not a folder" >&2; exit 1; }

cp -R "$backup" "$data"
chmod 700 "$data"
{
    echo "restore_command = 'cp \"$(cd "$archive" && pwd)/%f\" \"%p\"'"
    echo "recovery_target_action = 'promote'"
    echo "recovery_target_time = '$time'"
    echo "archive_mode = off"
} >> "$data/postgresql.auto.conf"
touch "$data/recovery.signal"
echo "start PostgreSQL with the data directory $data: it recovers to ${time:-the end of the archive}"
