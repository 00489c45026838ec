#!/bin/sh
# Copies a finished file of the write-ahead log into an archive. PostgreSQL runs it:
#
#   archive_command = '/path/to/archive-wal.sh /path/to/archive %p %f'
#
# PostgreSQL tries again until this succeeds. A file of the archive is never overwritten.
set -eu
[ $# -eq 3 ] || { echo "usage: archive-wal.sh ARCHIVE PATH NAME" >&2; exit 2; }
archive=$1 path=$2 name=$3

# Copies a file, unless the archive has it. PostgreSQL archives a file again after a failed attempt
# and after a crash. After a success it deletes its own copy, so the file must be on the disk.
store() {
    if [ ! -e "$archive/$2" ]; then
        cp "$1" "$archive/$2.part"
        sync "$archive/$2.part"
        mv "$archive/$2.part" "$archive/$2"
    elif ! cmp -s "$1" "$archive/$2"; then
        echo "archive-wal.sh: $archive/$2 exists with other content" >&2
        exit 1
    fi
    sync "$archive/$2" "$archive"
}

# The history of the timeline comes first. PostgreSQL does not archive it if archiving was off at the
# end of a recovery. Then the next recovery would give its timeline the same number.
history=$(printf %.8s "$name").history
if [ -e "$(dirname "$path")/$history" ]; then
    store "$(dirname "$path")/$history" "$history"
fi
store "$path" "$name"
