"""What a check found."""

import enum
from dataclasses import dataclass
from typing import Final

MOST_SKEW_SECONDS: Final = 2.0


class Verdict(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What one check saw, and what to do where it is not `OK`. Never a password."""

    check: str
    verdict: Verdict
    observation: str
    remedy: str = ""


def clock_finding(check: str, skew_seconds: float) -> Finding:
    """Judge by how much a server's clock differs from this machine's."""
    observation = f"{abs(skew_seconds):.1f} s {'ahead' if skew_seconds > 0 else 'behind'}"
    if abs(skew_seconds) <= MOST_SKEW_SECONDS:
        return Finding(check, Verdict.OK, observation)
    return Finding(
        check,
        Verdict.WARNING,
        observation,
        "nothing is decided by this machine's clock, but its logs will not match: run NTP on both",
    )
