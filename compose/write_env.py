"""Write `.env` for compose.yaml, with secrets made here; a file that is there stays as it is.

    python compose/write_env.py [FILE]

No name in it is a setting of ours: `segmentql up` reads `.env` as well, and is to start its own.
"""

import os
import secrets
import string
import sys
from pathlib import Path

HEAD = """\
# Made by `make compose` for compose.yaml. Keep it: the volumes were made with these passwords.
# FIRST_KEY is an API key of the role ADMIN; send it as `Authorization: Bearer sgql_...`.
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


def first_key() -> str:
    public_id = "".join(secrets.choice(KEY_CHARACTERS) for _ in range(KEY_ID_LENGTH))
    return f"sgql_{public_id}_{secrets.token_hex(KEY_SECRET_BYTES)}"


def write(file: Path) -> bool:
    """Write it, readable by its owner alone; False where there is one."""
    lines = [f"FIRST_KEY={first_key()}", *(f"{name}={secrets.token_hex(20)}" for name in PASSWORDS)]
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(HEAD + "\n".join(lines) + "\n")
    return True


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / ".env"
    print(f"{target} is made" if write(target) else f"{target} stays as it is", file=sys.stderr)
