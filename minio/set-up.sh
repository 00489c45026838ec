#!/bin/sh
# Prepares MinIO: a private bucket whose files expire, and a user with only the permissions that the
# service needs. Idempotent. It requires `mc` and these environment variables:
# SEGMENTQL_S3_ENDPOINT_URL, _S3_BUCKET, _S3_ACCESS_KEY, _S3_SECRET_KEY, MINIO_ROOT_USER and
# MINIO_ROOT_PASSWORD. SEGMENTQL_REPORT_RETENTION_DAYS is optional (30).
#
# It uses only the shell and `mc`, because MinIO's image has little else. Keys are passed through
# pipes and not as arguments, which every process can read.
set -eu

# Checked here, because an unset variable in a pipe would not stop the script.
: "${SEGMENTQL_S3_ENDPOINT_URL:?}" "${SEGMENTQL_S3_BUCKET:?}" "${SEGMENTQL_S3_ACCESS_KEY:?}"
: "${SEGMENTQL_S3_SECRET_KEY:?}" "${MINIO_ROOT_USER:?}" "${MINIO_ROOT_PASSWORD:?}"

here=${0%/*}
name=segmentql-reports
export MC_CONFIG_DIR="${MC_CONFIG_DIR:-/tmp/mc}"
bucket=$SEGMENTQL_S3_BUCKET
# A day longer than the scheduler keeps the files, in case it does not delete them.
expire_days=$((${SEGMENTQL_REPORT_RETENTION_DAYS:-30} + 1))

# Prints the smaller number: least NUMBER NUMBER.
least() {
    if [ "$1" -lt "$2" ]; then echo "$1"; else echo "$2"; fi
}

# Prints a file with a placeholder replaced: replace FILE PLACEHOLDER VALUE.
replace() {
    while IFS= read -r line; do
        case $line in
        *"$2"*) printf '%s\n' "${line%%"$2"*}$3${line#*"$2"}" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done <"$1"
}

printf '%s\n%s\n' "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" |
    mc --quiet alias set store "$SEGMENTQL_S3_ENDPOINT_URL"
mc --quiet mb --ignore-existing "store/$bucket"
mc --quiet anonymous set none "store/$bucket"
# The days of imports' files are explained in src/segmentql/adapters/bucket.py.
replace "$here/lifecycle.json" '${EXPIRE_DAYS}' "$expire_days" |
    replace /dev/stdin '${UPLOADS_EXPIRE_DAYS}' "$(least 3 "$expire_days")" |
    replace /dev/stdin '${FILES_EXPIRE_DAYS}' "$(least 8 "$expire_days")" |
    mc --quiet ilm import "store/$bucket"

replace "$here/policy.json" '${SEGMENTQL_S3_BUCKET}' "$bucket" |
    mc --quiet admin policy create store "$name" /dev/stdin
printf '%s\n%s\n' "$SEGMENTQL_S3_ACCESS_KEY" "$SEGMENTQL_S3_SECRET_KEY" |
    mc --quiet admin user add store
# Attaching an attached policy again is an error.
case $(mc --quiet admin policy entities store --user "$SEGMENTQL_S3_ACCESS_KEY") in
*"$name"*) ;;
*) mc --quiet admin policy attach store "$name" --user "$SEGMENTQL_S3_ACCESS_KEY" ;;
esac
echo "bucket $bucket is ready"
