"""Invalid documents and variables, with the `argument` and `allowed` of their error."""

from typing import Any, Final

from segmentql.graphql.execution.allowed_values import ALLOWED

IDS: Final = f"a list; each item is {ALLOWED['ID']}"
ON_EXISTING: Final = "one of EXTEND, REPLACE, KEEP"
SOURCE: Final = "an object with exactly one of the fields `upload`, `segments`"
NEW_SEGMENT: Final = "`slug`, `name`, `description`, `rollout`, `dryRun`"
STAGE: Final = "`percent`, `startsAt`, `afterSeconds`"

MUTATIONS: Final = {
    "applyImport": "ApplyImportInput",
    "createImport": "CreateImportInput",
    "createSegment": "CreateSegmentInput",
    "setRollout": "SetRolloutInput",
    "updateUserSegments": "UpdateUserSegmentsInput",
}

INPUTS: Final[list[tuple[str, str, Any, str, str]]] = [
    # mutation, literal of its input, the same as a variable, argument, allowed
    (
        "applyImport",
        '{id: "imp_1", allowRemovals: "x"}',
        {"id": "imp_1", "allowRemovals": "x"},
        "input.allowRemovals",
        ALLOWED["BigInt"],
    ),
    (
        "applyImport",
        '{id: "imp_1", allowRemovals: [1]}',
        {"id": "imp_1", "allowRemovals": [1]},
        "input.allowRemovals",
        ALLOWED["BigInt"],
    ),
    (
        "setRollout",
        '{slug: "a", rollout: {percent: "x"}}',
        {"slug": "a", "rollout": {"percent": "x"}},
        "input.rollout.percent",
        ALLOWED["Float"],
    ),
    (
        "setRollout",
        '{slug: "a", rollout: {stages: [{percent: 1}, {percent: true}]}}',
        {"slug": "a", "rollout": {"stages": [{"percent": 1}, {"percent": True}]}},
        "input.rollout.stages.1.percent",
        ALLOWED["Float"],
    ),
    (
        "setRollout",
        '{slug: "a", rollout: {stages: {percent: 1, at: 1}}}',  # an item stands for a list
        {"slug": "a", "rollout": {"stages": {"percent": 1, "at": 1}}},
        "input.rollout.stages.at",
        f"the fields {STAGE}",
    ),
    (
        "setRollout",
        '{slug: "a", rollout: {stages: [5]}}',
        {"slug": "a", "rollout": {"stages": [5]}},
        "input.rollout.stages.0",
        f"an object with the fields {STAGE}",
    ),
    (
        "updateUserSegments",
        '{userId: 1, onExisting: "NOPE"}',
        {"userId": 1, "onExisting": "NOPE"},
        "input.onExisting",
        ON_EXISTING,
    ),
    (
        "updateUserSegments",
        "{userId: 1, onExisting: 3}",
        {"userId": 1, "onExisting": 3},
        "input.onExisting",
        ON_EXISTING,
    ),
    (
        "updateUserSegments",
        '{userId: 1, add: ["a", null]}',
        {"userId": 1, "add": ["a", None]},
        "input.add.1",
        ALLOWED["String"],
    ),
    ("createSegment", "{}", {}, "input.slug", ALLOWED["String"]),
    (
        "createSegment",
        '{slug: "a", nme: "A"}',
        {"slug": "a", "nme": "A"},
        "input.nme",
        f"the fields {NEW_SEGMENT}",
    ),
    ("createSegment", "null", None, "input", f"an object with the fields {NEW_SEGMENT}"),
    ("createSegment", "3", 3, "input", f"an object with the fields {NEW_SEGMENT}"),
    ("createImport", '{slug: "a"}', {"slug": "a"}, "input.source", SOURCE),
    (
        "createImport",
        '{slug: "a", source: {}}',
        {"slug": "a", "source": {}},
        "input.source",
        SOURCE,
    ),
    (
        "createImport",
        '{slug: "a", source: {upload: null}}',
        {"slug": "a", "source": {"upload": None}},
        "input.source",
        SOURCE,
    ),
    (
        "createImport",
        '{slug: "a", source: {upload: {sizeBytes: 1}, segments: {anyOf: ["a"]}}}',
        {"slug": "a", "source": {"upload": {"sizeBytes": 1}, "segments": {"anyOf": ["a"]}}},
        "input.source",
        SOURCE,
    ),
    (
        "createImport",
        '{slug: "a", source: {upload: {}}}',
        {"slug": "a", "source": {"upload": {}}},
        "input.source.upload.sizeBytes",
        ALLOWED["BigInt"],
    ),
]

DOCUMENTS: Final[list[tuple[str, dict[str, Any], str, str]]] = [
    # document, variables, argument, allowed
    ("{ user { id } }", {}, "id", ALLOWED["ID"]),
    (
        "mutation { createSegment { segment { id } } }",
        {},
        "input",
        f"an object with the fields {NEW_SEGMENT}",
    ),
    ("{ user(id: 1, slug: 2) { id } }", {}, "slug", "the arguments `id`"),
    ("{ viewer { name(first: 1) } }", {}, "first", "no argument"),
    ("{ users(first: 1, first: 2) { nodes { id } } }", {}, "first", "one value"),
    ("{ usersById(ids: null) { id } }", {}, "ids", IDS),
    ("{ usersById(ids: {}) { id } }", {}, "ids", ALLOWED["ID"]),
    ("{ user(id: 1) { id @include } }", {}, "if", ALLOWED["Boolean"]),
    ("{ changes(start: SOON) { cursor } }", {}, "start", "one of NOW, EARLIEST"),
    (
        "{ changes(filter: {operations: [LEFT, NOPE]}) { cursor } }",
        {},
        "filter.operations.1",
        "one of JOINED, LEFT",
    ),
    ("query($i: ID! = 1.5) { user(id: $i) { id } }", {}, "id", ALLOWED["ID"]),
    (
        "query($f: FeedFilter = {userIds: [1, 1.5]}) { changes(filter: $f) { cursor } }",
        {},
        "filter.userIds.1",
        ALLOWED["ID"],
    ),
    (
        "query($f: FeedFilter = {nope: 1}) { changes(filter: $f) { cursor } }",
        {},
        "filter.nope",
        "the fields `slugs`, `userIds`, `operations`",
    ),
    ("query($i: String!) { user(id: $i) { id } }", {}, "id", "a variable of the type ID!"),
    ("{ user(id: $i) { id } }", {}, "id", "a variable that the operation defines"),
    ("query($i: ID!) { user(id: $i) { id } }", {}, "id", ALLOWED["ID"]),
    ("query($i: [ID!]!) { usersById(ids: $i) { id } }", {"i": None}, "ids", IDS),
    ("query($i: [ID!]!) { usersById(ids: $i) { id } }", {"i": [1, None]}, "ids.1", ALLOWED["ID"]),
    ("query($i: ID!) { usersById(ids: [1, $i]) { id } }", {"i": 1.5}, "ids.1", ALLOWED["ID"]),
    (
        "query($s: String!) { ...f } fragment f on Query { segment(slug: $s) { id } }",
        {"s": 1},
        "slug",
        ALLOWED["String"],
    ),
    (
        "query($s: FeedStart) { changes(start: $s) { cursor } }",
        {"s": "SOON"},
        "start",
        "one of NOW, EARLIEST",
    ),
]


def cases() -> list[tuple[str, dict[str, Any], str, str]]:
    literals: list[tuple[str, dict[str, Any], str, str]] = [
        (f"mutation {{ {name}(input: {literal}) {{ __typename }} }}", {}, argument, allowed)
        for name, literal, _, argument, allowed in INPUTS
    ]
    in_variables = [
        (
            f"mutation($i: {MUTATIONS[name]}!) {{ {name}(input: $i) {{ __typename }} }}",
            {"i": value},
            argument,
            allowed,
        )
        for name, _, value, argument, allowed in INPUTS
    ]
    return [*literals, *in_variables, *DOCUMENTS]
