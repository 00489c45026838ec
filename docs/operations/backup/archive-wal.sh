#!/bin/sh
# Copies a finished file of the write-ahead log into an archive. PostgreSQL runs it:
#
#   archive_command = '/path/to/archive-wal.sh /path/to/archive %p %f'
#
# PostgreSQL tries again until this succeeds. A file of the archive is never overwritten.
set -eu
[ $# -eq 3 ] || { echo "usage: archive-wal.sh ARCHIVE PATH NAME" >&2; exit 2; }
archive=$1 path=$2 name=$3

if [ -e "$archive/$name" ]; then
    # PostgreSQL may archive a file again after a crash.
    cmp -s "$path" "$archive/$name" && exit 0
    echo "archive-wal.sh: $archive/$name exists with other content" >&2
    exit 1
fi
cp "$path" "$archive/$name.part"
sync "$archive/$name.part"
mv "$archive/$name.part" "$archive/$name"
sync "$archive"
