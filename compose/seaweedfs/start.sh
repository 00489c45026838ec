#!/bin/sh
# Starts SeaweedFS with S3 on port 9000 and two keys: the administrator's, for `segmentql bucket`, and
# the service's, which can only list, read, write and delete files of its bucket.
set -eu
: "${ROOT_ACCESS_KEY:?}" "${ROOT_SECRET_KEY:?}" "${S3_BUCKET:?}" "${S3_ACCESS_KEY:?}" "${S3_SECRET_KEY:?}"

# The keys are in a file, because every process can read arguments.
umask 077
cat >/tmp/s3.json <<JSON
{
  "identities": [
    {
      "name": "root",
      "credentials": [{ "accessKey": "$ROOT_ACCESS_KEY", "secretKey": "$ROOT_SECRET_KEY" }],
      "actions": ["Admin"]
    },
    {
      "name": "service",
      "credentials": [{ "accessKey": "$S3_ACCESS_KEY", "secretKey": "$S3_SECRET_KEY" }],
      "actions": ["Read:$S3_BUCKET", "List:$S3_BUCKET", "Write:$S3_BUCKET"]
    }
  ]
}
JSON

# The internal HTTP ports require tokens that are signed with this key.
key=$(printf '%s' "$ROOT_SECRET_KEY" | sha256sum | cut -d ' ' -f 1)
export WEED_JWT_SIGNING_KEY="$key" WEED_JWT_SIGNING_READ_KEY="$key"
export WEED_JWT_FILER_SIGNING_KEY="$key" WEED_JWT_FILER_SIGNING_READ_KEY="$key"

# The stored options of the last start would override options that have their default value.
rm -f /data/mini.options
cd /data
exec weed -logtostderr=true mini -dir=/data -ip=127.0.0.1 -ip.bind=0.0.0.0 \
    -s3.port=9000 -s3.config=/tmp/s3.json -s3.iam=false -s3.autoCreateBucket=false \
    -s3.allowedOrigins="${S3_CORS_ORIGINS:-}" -s3.port.iceberg=0 -s3.port.lance=0 \
    -volume.preStopSeconds=0 -master.telemetry=false -admin.ui=false -webdav=false
