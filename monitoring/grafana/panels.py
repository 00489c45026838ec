"""The panel of a dashboard, and functions that return its queries."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """A graph. Each query has a legend for its lines."""

    title: str
    unit: str
    """The unit by Grafana's name, such as `s`, `reqps`, `percentunit` or `short`."""
    queries: Sequence[tuple[str, str]]
    description: str = ""


def per_second(metric: str, by: str, selector: str = "") -> tuple[str, str]:
    """Return the query for the rate of a counter, by a label."""
    return f"sum by ({by}) (rate({metric}{selector}[$__rate_interval]))", f"{{{{{by}}}}}"


def quantile(q: float, metric: str, by: str = "", selector: str = "") -> tuple[str, str]:
    """Return the query for a quantile of a histogram, by a label or in total."""
    labels = f"le, {by}" if by else "le"
    rates = f"sum by ({labels}) (rate({metric}_bucket{selector}[$__rate_interval]))"
    legend = f"{{{{{by}}}}}" if by else f"p{q * 100:g}"
    return f"histogram_quantile({q}, {rates})", legend


def gauge(metric: str, by: str = "", legend: str = "") -> tuple[str, str]:
    """Return the query for a gauge that all API processes expose with the same value."""
    if by:
        return f"max by ({by}) ({metric})", f"{{{{{by}}}}}"
    return f"max({metric})", legend
