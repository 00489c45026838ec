"""The documents of the commands that are clients of the API.

The server executes them even if it executes only stored documents, so that the commands need no
push.
"""

from typing import Final

CHANGES: Final = """
query Changes(
  $after: String, $start: FeedStart, $filter: FeedFilter, $first: Int!, $waitSeconds: Int!
) {
  changes(
    after: $after, start: $start, filter: $filter, first: $first, waitSeconds: $waitSeconds
  ) {
    cursor
    caughtUp
    events {
      cursor
      at
      ... on MembershipEvent {
        entry {
          id operation userId userKey cause actor recordedAt
          segment { id slug }
        }
      }
    }
  }
}
"""

CREATE_EXPORT: Final = """
mutation Create($input: CreateExportInput!) {
  createExport(input: $input) { export { id } errors { code message } }
}
"""

READ_EXPORT: Final = """
query Read($id: ID!) {
  export(id: $id) { status rowCount sizeBytes asOf cursor failure fileName downloadUrl }
}
"""

CREATE_IMPORT: Final = """
mutation Create($input: CreateImportInput!) {
  createImport(input: $input) {
    import { id } upload { url method headers { name value } } errors { code message }
  }
}
"""

START_IMPORT: Final = """
mutation Start($input: StartImportInput!) {
  startImport(input: $input) { errors { code message } }
}
"""

APPLY_IMPORT: Final = """
mutation Apply($input: ApplyImportInput!) {
  applyImport(input: $input) { errors { code message } }
}
"""

CANCEL_IMPORT: Final = """
mutation Cancel($input: CancelImportInput!) {
  cancelImport(input: $input) { errors { code message } }
}
"""

READ_IMPORT: Final = """
query Read($id: ID!) {
  import(id: $id) {
    id status mode progress counts { outcome count } rows removals failure segment { slug }
    rejections(first: 20) { line value message }
  }
}
"""

READ_IMPORT_RESULT: Final = "query Result($id: ID!) { import(id: $id) { resultUrl } }"

COMMAND_DOCUMENTS: Final = (
    CHANGES,
    CREATE_EXPORT,
    READ_EXPORT,
    CREATE_IMPORT,
    START_IMPORT,
    APPLY_IMPORT,
    CANCEL_IMPORT,
    READ_IMPORT,
    READ_IMPORT_RESULT,
)
"""All documents of the commands."""
