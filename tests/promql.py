"""A reader of metrics and labels in PromQL expressions, for the parts of the language in use."""

import re

_STRING = re.compile(r'"[^"]*"')
_BRACES = re.compile(r"(\w+)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUP = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
_METRIC = re.compile(r"\b(?:segmentql_\w+|up)\b")
_OF_HISTOGRAMS = ("_bucket", "_count", "_sum")


def family(metric: str) -> str:
    """Return the name of the histogram that a series belongs to."""
    for ending in _OF_HISTOGRAMS:
        if metric.endswith(ending):
            return metric.removesuffix(ending)
    return metric


def reads(expression: str) -> tuple[set[str], set[str]]:
    """Return the metrics, and the labels that are selected or grouped by."""
    bare = _STRING.sub('""', expression)
    labels = {
        label for _, matchers in _BRACES.findall(bare) for label in _LABEL.findall(matchers)
    } | {label.strip() for group in _GROUP.findall(bare) for label in group.split(",")}
    return {family(metric) for metric in _METRIC.findall(bare)}, labels
