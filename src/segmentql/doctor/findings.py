"""Findings: the results of checks."""

import enum
from dataclasses import dataclass
from typing import Final

MAX_SKEW_SECONDS: Final = 2.0


class Verdict(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """The result of a check, with a remedy if it is not `OK`. It contains no password."""

    check: str
    verdict: Verdict
    observation: str
    remedy: str = ""


def clock_finding(check: str, skew_seconds: float) -> Finding:
    """Return the finding for the difference between a server's and this machine's clock."""
    observation = f"{abs(skew_seconds):.1f} s {'ahead' if skew_seconds > 0 else 'behind'}"
    if abs(skew_seconds) <= MAX_SKEW_SECONDS:
        return Finding(check, Verdict.OK, observation)
    return Finding(
        check,
        Verdict.WARNING,
        observation,
        "run NTP on both machines. Log timestamps and the signatures of S3"
        " requests use this machine's clock",
    )
