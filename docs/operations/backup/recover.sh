#!/bin/sh
# Copies a physical backup into a new data directory, which recovers to a time when it is started.
#
#   recover.sh BACKUP ARCHIVE DATA_DIRECTORY TIME
#
# TIME is a time in UTC, such as '2026-11-28 02:00:00+00', or 'latest' for the end of the archive. Run
# this as the account of PostgreSQL, and start PostgreSQL with the data directory. The server does not
# write to the archive, so that this can be repeated with another time, and its commits wait for no
# standby.
set -eu
export LC_ALL=C
[ $# -eq 4 ] || { echo "usage: recover.sh BACKUP ARCHIVE DATA_DIRECTORY TIME" >&2; exit 2; }
backup=$1 archive=$2 data=${3%/} time=$4

fail() {
    echo "recover.sh: $1" >&2
    exit 1
}

# Prints the number of the log file with a position such as 0/5410760. $files_per_log_id is the
# number of files with the same 16 first digits.
file_number() {
    echo $((0x${1%/*} * files_per_log_id + 0x${1#*/} / (4294967296 / files_per_log_id)))
}

# Prints the first file that is missing between the start of the backup and the end of the newest
# timeline of the archive. PostgreSQL would take it for the end of the log.
missing_file() {
    file_size=$(wc -c < "$backup/pg_wal/$first")
    files_per_log_id=$((4294967296 / file_size))
    start=$(sed -n 's/^START WAL LOCATION: \([^ ]*\) .*/\1/p' "$backup/backup_label")
    number=$(file_number "$start")
    timeline=$((0x$(printf %.8s "$first")))
    newest=$timeline
    while [ -e "$archive/$(printf %08X.history $((newest + 1)))" ]; do newest=$((newest + 1)); done

    # each timeline with the number of the file in which the next one begins
    {
        [ "$newest" -eq "$timeline" ] || cat "$archive/$(printf %08X.history "$newest")"
        last=$(ls "$archive" | grep -E "^$(printf %08X "$newest")[0-9A-F]{16}\$" | tail -n 1)
        [ -z "$last" ] || printf '%s\t%s/%s\n' "$newest" "$(printf %s "$last" | cut -c 9-16)" \
            "$(printf %x $(((0x$(printf %s "$last" | cut -c 17-24) + 1) * file_size)))"
    } | while read -r parent switch _; do
        case $parent in '' | *[!0-9]*) continue ;; esac
        [ "$parent" -ge "$timeline" ] || continue
        end=$(file_number "$switch")
        while [ "$number" -lt "$end" ]; do
            name=$(printf %08X%08X%08X \
                "$parent" $((number / files_per_log_id)) $((number % files_per_log_id)))
            [ -e "$archive/$name" ] || [ -e "$backup/pg_wal/$name" ] || { echo "$name"; exit; }
            number=$((number + 1))
        done
    done
}

[ ! -e "$data" ] || fail "$data exists"
[ ! -e "$data.part" ] || fail "$data.part exists: an earlier run was interrupted. Delete it"
[ -e "$backup/backup_label" ] || fail "$backup has no backup_label, so it is not a base backup"
first=$(sed -n 's/^START WAL LOCATION: .*(file \(.*\))$/\1/p' "$backup/backup_label")
[ -e "$backup/pg_wal/$first" ] || fail "$backup has no pg_wal/$first"
# The server would write to the backup through a link.
link=$(find "$backup/" -type l | head -n 1)
[ -z "$link" ] || fail "$link is a link, as of a tablespace. A backup with links is not supported"
[ -d "$archive" ] || fail "$archive is not a folder"
archive=$(CDPATH='' cd -- "$archive" > /dev/null && pwd)
case $archive in
*[\'\"\$\`%\\]* | *"
"*) fail "the path of the archive must not contain ' \" \$ \` % \\ or a line end: $archive" ;;
esac
case $time in
latest)
    time=
    missing=$(missing_file)
    [ -z "$missing" ] || fail "$archive has no $missing, so the recovery would end before it.\
 To recover without it, move all files with later names out of the archive"
    ;;
[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]\ [0-9][0-9]:[0-9][0-9]:[0-9][0-9]*+00)
    # PostgreSQL finds out whether the time is before the end of the backup.
    begun=$(sed -n 's/.*"backup_label".*"Last-Modified": "\(.*\) GMT".*/\1/p' \
        "$backup/backup_manifest")
    [ "$(printf '%.19s\n%s\n' "$time" "$begun" | sort | tail -n 1)" != "$begun" ] ||
        fail "the backup began at $begun+00. Take a backup that is older than $time"
    ;;
*) fail "TIME must be latest, or a time in UTC such as '2026-11-28 02:00:00+00', not '$time'" ;;
esac

mkdir -m 700 "$data.part"
trap 'rm -rf "$data.part"' EXIT
trap 'exit 1' HUP INT TERM
cp -R "$backup/." "$data.part"
# A standby's backup has this file. With it, the server would wait for more log at the end of the
# recovery.
rm -f "$data.part/standby.signal"
touch "$data.part/recovery.signal"
{
    echo "restore_command = 'cp \"$archive/%f\" \"%p\"'"
    echo "recovery_target_action = 'promote'"
    echo "recovery_target_time = '$time'"
    echo "archive_mode = off"
    # The backup may be that of a server with standbys, or of a standby.
    echo "synchronous_standby_names = ''"
    echo "recovery_min_apply_delay = 0"
    echo "recovery_end_command = ''"
    echo "archive_cleanup_command = ''"
} >> "$data.part/postgresql.auto.conf"
# Only a complete directory gets its name: without recovery.signal, the server would start with the
# state of the backup.
mv "$data.part" "$data"
echo "start PostgreSQL with the data directory $data: it recovers to ${time:-the end of the archive}"
