"""Write `.env` for compose.yaml with new secrets. An existing file is not changed.

    python compose/write_env.py [FILE]

The file contains no settings of SegmentQL, because `segmentql up` also reads `.env` and would then
use the servers of compose.yaml.
"""

import os
import secrets
import string
import sys
from pathlib import Path

HEADER = """\
# Created by `make compose` for compose.yaml. Keep it: the volumes use these passwords.
# FIRST_KEY is an API key with the role ADMIN. Send it as `Authorization: Bearer sgql_...`.
# STORE=seaweedfs starts SeaweedFS instead of MinIO.
"""
KEY_CHARACTERS = string.ascii_lowercase + string.digits
KEY_ID_LENGTH, KEY_SECRET_BYTES = 12, 32
PASSWORDS = (
    "POSTGRES_PASSWORD",
    "POSTGRES_OWNER_PASSWORD",
    "POSTGRES_SERVICE_PASSWORD",
    "REDIS_PASSWORD",
    "MINIO_ROOT_PASSWORD",
    "S3_SECRET_KEY",
    "METRICS_TOKEN",
    "GRAFANA_PASSWORD",
)


def generate_first_key() -> str:
    public_id = "".join(secrets.choice(KEY_CHARACTERS) for _ in range(KEY_ID_LENGTH))
    return f"sgql_{public_id}_{secrets.token_hex(KEY_SECRET_BYTES)}"


def write_env(file: Path) -> bool:
    """Write the file, readable only by its owner; return False if it exists."""
    lines = [
        f"FIRST_KEY={generate_first_key()}",
        *(f"{name}={secrets.token_hex(20)}" for name in PASSWORDS),
    ]
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(HEADER + "\n".join(lines) + "\n")
    return True


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / ".env"
    print(
        f"created {target}" if write_env(target) else f"{target} exists and was not changed",
        file=sys.stderr,
    )
