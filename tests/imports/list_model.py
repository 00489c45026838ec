"""An independent model of imports: the outcome of each row, and the state afterwards."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

TTL_HOURS = 48
BAD_ROWS = {"x": "MALFORMED", "01": "MALFORMED", "9" * 20: "OUT_OF_RANGE", "": "BLANK"}


@dataclass(frozen=True)
class Options:
    """The fields of an import that change its outcomes."""

    mode: str = "ADD"
    identity: str = "ID"
    has_ttl: bool = False
    on_existing: str = "EXTEND"
    on_excluded: str = "SKIP"
    on_unknown_user: str = "STORE"
    exclude: bool = True


@dataclass
class State:
    """The users, and the members and excluded users of the segment."""

    names: set[str]
    """The stored users, by the text that names them in the list."""
    members: dict[str, tuple[str, int | None]]
    """The cause, and the hours until the end, of each active membership."""
    excluded: set[str]


@dataclass
class Expected:
    """What an import does."""

    counts: Counter[str]
    removals: int


def run(rows: Sequence[str], options: Options, state: State, sample: Set[str]) -> Expected:
    """Apply a list to the state; return the outcomes of its rows."""
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    removals = 0
    for row in rows:
        if row in BAD_ROWS:
            counts[BAD_ROWS[row]] += 1
        elif row in seen:
            counts["DUPLICATE"] += 1
        else:
            seen.add(row)
            outcome = (
                _remove(row, options, state, sample)
                if options.mode == "REMOVE"
                else _add(row, options, state)
            )
            removals += outcome == "LEFT"
            counts[outcome] += 1
    if options.mode == "REPLACE":
        for name, (cause, _) in list(state.members.items()):
            if cause == "MANUAL" and name not in seen:
                removals += _take_off(name, state, sample) == "LEFT"
    return Expected(counts, removals)


def _add(name: str, options: Options, state: State) -> str:
    new_end = TTL_HOURS if options.has_ttl else None
    if name not in state.names:
        if options.on_unknown_user == "SKIP":
            return "UNKNOWN_USER"
        state.names.add(name)
    if name not in state.members:
        if name in state.excluded and options.on_excluded == "SKIP":
            return "EXCLUDED"
        state.excluded.discard(name)
        state.members[name] = ("MANUAL", new_end)
        return "JOINED"
    _, old_end = state.members[name]
    if options.on_existing == "KEEP":
        return "ALREADY_IN"
    end = new_end
    if options.on_existing == "EXTEND":
        end = None if old_end is None or new_end is None else max(old_end, new_end)
    state.members[name] = ("MANUAL", end)
    return "ALREADY_IN" if end == old_end else "END_CHANGED"


def _remove(name: str, options: Options, state: State, sample: Set[str]) -> str:
    if name not in state.names:
        return "UNKNOWN_USER"
    if options.exclude:
        state.excluded.add(name)
        return "NOT_IN" if state.members.pop(name, None) is None else "LEFT"
    return _take_off(name, state, sample) if name in state.members else "NOT_IN"


def _take_off(name: str, state: State, sample: Set[str]) -> str:
    if name in sample:
        cause, end = state.members[name]
        state.members[name] = ("ROLLOUT", None if cause == "MANUAL" else end)
        return "ALREADY_IN"
    del state.members[name]
    return "LEFT"


def total(counts: Mapping[str, int]) -> int:
    return sum(counts.values())
