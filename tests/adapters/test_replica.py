"""The lag of a replica is measured by positions of the WAL."""

from segmentql.adapters.replica import MAX_POSITIONS, ReplicationLag


def test_idle_primary_is_no_lag() -> None:
    lag = ReplicationLag()
    lag.add(0, 100)
    lag.add(1, 100)
    assert lag.seconds(1000, 100) == 0


def test_lag_is_the_age_of_the_oldest_position_that_is_not_replayed() -> None:
    lag = ReplicationLag()
    for second in range(5):
        lag.add(second, 100 + second)
    assert lag.seconds(10, 99) == 10
    assert lag.seconds(10, 102) == 7
    assert lag.seconds(10, 104) == 0


def test_lag_stays_exact_while_the_replica_is_away_for_hours() -> None:
    lag = ReplicationLag()
    for second in range(2 * MAX_POSITIONS):
        lag.add(second, second)
    assert lag.seconds(10_000, -1) == 10_000
    assert lag.seconds(10_000, 10) == 10_000 - 11


def test_lag_starts_over_after_a_failover_to_an_earlier_position() -> None:
    lag = ReplicationLag()
    lag.add(0, 1000)
    lag.add(5, 900)
    assert lag.seconds(10, 890) == 5
