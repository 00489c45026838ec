"""Random commands for the property-based tests."""

from hypothesis import strategies as st

from segmentql.memberships.records import OnExisting
from tests.rollouts.commands import (
    SLUGS,
    USERS,
    Cancel,
    Command,
    CreateUser,
    DeleteUser,
    FinishWork,
    InsertUsers,
    PassTime,
    Pause,
    RecordExpiry,
    Resume,
    RunStep,
    SetPlan,
    UpdateMemberships,
)


def plans(*slugs: str) -> st.SearchStrategy[SetPlan]:
    """Plans of one to four stages for one of the segments."""
    percent = st.sampled_from(["0", "5", "10", "33.333", "50", "75", "100"])
    stages = st.tuples(
        st.tuples(percent, st.sampled_from([0, 0, 0, 1])),
        st.lists(st.tuples(percent, st.integers(1, 2)), max_size=3),
    ).map(lambda found: (found[0], *found[1]))
    return st.builds(
        SetPlan,
        st.sampled_from(slugs),
        stages,
        st.sampled_from([True, True, True, False]),
        st.sampled_from([None, None, 1, 2]),
    )


def membership_updates() -> st.SearchStrategy[Command]:
    """Manual changes of one user."""
    return st.builds(
        lambda user_id, slugs, split, ttl, on_existing: UpdateMemberships(
            user_id, slugs[:split], slugs[split:], ttl, on_existing
        ),
        st.sampled_from(USERS),
        st.sampled_from([("A",), ("B",), ("A", "B"), ("B", "A"), ()]),
        st.integers(0, 2),
        st.none() | st.integers(1, 3),
        st.sampled_from(OnExisting),
    )


def command_lists() -> st.SearchStrategy[list[Command]]:
    """Lists of commands that begin with 20 users and a plan of segment A."""
    slugs, users = st.sampled_from(SLUGS), st.sampled_from(USERS)
    # One integer chooses the command, because `one_of` would ignore the weights.
    weighted: list[st.SearchStrategy[Command]] = [
        *[plans(*SLUGS)] * 4,
        *[st.builds(RunStep, slugs)] * 6,
        *[st.builds(FinishWork, slugs)] * 4,
        *[membership_updates()] * 6,
        *[st.builds(InsertUsers, users, st.integers(1, 20))] * 2,
        *[st.builds(DeleteUser, users)] * 3,
        *[st.builds(PassTime, st.integers(1, 2))] * 3,
        st.builds(CreateUser, users),
        st.builds(Pause, slugs),
        *[st.builds(Resume, slugs)] * 2,
        st.builds(Cancel, slugs, st.booleans()),
        st.just(RecordExpiry()),
    ]
    command = st.integers(0, len(weighted) - 1).flatmap(weighted.__getitem__)
    return st.lists(command, min_size=15, max_size=35).map(
        lambda rest: [InsertUsers(1, 20), SetPlan("A", (("50", 0), ("10", 1), ("75", 2))), *rest]
    )
