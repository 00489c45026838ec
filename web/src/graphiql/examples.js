// The tabs of a first visit, in the order of the README. A returning visitor gets
// the tabs of the last visit. An entry has a `query`, and optionally
// `variables` and `headers` (objects). The operation's name is the tab's title.
//
// Lines have at most 48 characters, the editor's width on a laptop. The first tab
// has no variables, because GraphiQL 5.4 shows only its query on a first visit.

const now = new Date();

export const examples = [
  {
    query: `
# 1. Create two segments: named sets of users.
#    A second run returns SEGMENT_ALREADY_EXISTS.
mutation CreateSegments {
  thirty: createSegment(
    input: { slug: "AVITO_DISCOUNT_30" }
  ) {
    segment { slug createdAt }
    errors { code message path }
  }
  fifty: createSegment(
    input: { slug: "AVITO_DISCOUNT_50" }
  ) {
    segment { slug createdAt }
    errors { code message path }
  }
}`,
  },
  {
    query: `
# 2. Add a user to both, to one of them for 30
#    seconds. The first change stores the user,
#    so you do not have to create it.
mutation AddWithTtl($user: ID!, $ttl: Int!) {
  addBoth: updateUserSegments(
    input: {
      userId: $user
      add: [
        "AVITO_DISCOUNT_30"
        "AVITO_DISCOUNT_50"
      ]
    }
  ) {
    segmentsAdded
    errors { code message path }
  }
  # The user is a member already. EXTEND, the
  # default, keeps the later of two ends; REPLACE
  # sets the new end.
  endSoon: updateUserSegments(
    input: {
      userId: $user
      add: ["AVITO_DISCOUNT_50"]
      ttlSeconds: $ttl
      onExisting: REPLACE
    }
  ) {
    segmentsExtended
    errors { code message path }
  }
}`,
    variables: { user: "1", ttl: 30 },
  },
  {
    query: `
# 3. Read the user's segments. Run it again after
#    expiresAt: AVITO_DISCOUNT_50 has expired.
query ReadUser($user: ID!) {
  user(id: $user) {
    segments { slug }
    memberships {
      segment { slug }
      joinedAt
      expiresAt
      cause
    }
  }
}`,
    variables: { user: "1" },
  },
  {
    query: `
# 4. Read when the user joined and left, and why,
#    newest first. \`at\` is exact at once;
#    recordedAt is null until a worker records it.
query ReadHistory($user: ID!) {
  history(userId: $user) {
    nodes {
      operation
      at
      recordedAt
      cause
      segment { slug }
    }
    pageInfo { hasNextPage endCursor }
  }
}`,
    variables: { user: "1" },
  },
  {
    query: `
# 5. Put 10 % of all users into a segment, and
#    50 % half a minute later. The command
#    \`segmentql seed\` stores 5000 users.
mutation StartRollout {
  createSegment(
    input: {
      slug: "AVITO_NEW_SEARCH"
      rollout: {
        stages: [
          { percent: 10 }
          { percent: 50, afterSeconds: 30 }
        ]
      }
    }
  ) {
    segment {
      rollout {
        status
        stages { percent startsAt status }
      }
    }
    errors { code message path }
  }
}`,
  },
  {
    query: `
# 6. Watch its progress: run it again, or run
#    \`segmentql rollout watch AVITO_NEW_SEARCH\`.
#    A user stored later joins at once, if the
#    percent in force includes that user.
query WatchRollout($slug: String!) {
  segment(slug: $slug) {
    memberCount
    rollout {
      status
      percent
      progress
      usersSeen
      usersTotal
      enrolled
      excluded
      stages { percent startsAt status }
      failure
    }
  }
}`,
    variables: { slug: "AVITO_NEW_SEARCH" },
  },
  {
    query: `
# 7. The run button lets you choose one of four
#    operations. A pause delays the later stages.
mutation PauseRollout($slug: String!) {
  pauseRollout(input: { slug: $slug }) {
    rollout { status percent }
    errors { code message path }
  }
}

mutation ResumeRollout($slug: String!) {
  resumeRollout(input: { slug: $slug }) {
    rollout { status percent }
    errors { code message path }
  }
}

# Set a new plan. Members stay members.
mutation RaiseRollout($slug: String!) {
  setRollout(
    input: {
      slug: $slug
      rollout: { percent: 80 }
    }
  ) {
    rollout { status percent }
    errors { code message path }
  }
}

# Remove all members that the rollout added.
# Members added by hand stay.
mutation WithdrawRollout($slug: String!) {
  cancelRollout(
    input: { slug: $slug, withdraw: true }
  ) {
    rollout { status percent }
    errors { code message path }
  }
}`,
    variables: { slug: "AVITO_NEW_SEARCH" },
  },
  {
    query: `
# 8. Get a month of joins and leaves as CSV. The
#    link downloadUrl works for 15 minutes; query
#    \`report\` for a new one.
mutation ReportMonth(
  $user: ID
  $year: Int!
  $month: Int!
) {
  createReport(
    input: {
      userId: $user
      year: $year
      month: $month
      waitSeconds: 10
    }
  ) {
    report {
      id
      status
      fileName
      rowCount
      sizeBytes
      downloadUrl
      failure
    }
    errors { code message path }
  }
}`,
    // This month, in UTC. Set user to null for a report on all users.
    variables: {
      user: "1",
      year: now.getUTCFullYear(),
      month: now.getUTCMonth() + 1,
    },
  },
  {
    query: `
# 9. Change up to 1000 users of a segment, by id
#    or by key, all or nothing. Each row of the
#    lists is counted: a second run returns
#    ALREADY_IN and NOT_IN.
mutation ChangeMembers(
  $add: [ID!]
  $addKeys: [String!]
  $remove: [ID!]
) {
  updateSegmentMembers(
    input: {
      slug: "AVITO_DISCOUNT_30"
      add: $add
      addKeys: $addKeys
      remove: $remove
    }
  ) {
    counts { outcome count }
    errors { code message path }
  }
}`,
    variables: {
      add: ["2", "3", "4"],
      addKeys: ["ada@example.com"],
      remove: ["1"],
    },
  },
  {
    query: `
# 10. Import a list that is computed from other
#    segments. A dryRun changes nothing. Use the
#    command \`segmentql import\` or a source with
#    \`upload\` for a file, see docs/lists.md.
mutation ImportList($dryRun: Boolean!) {
  createImport(
    input: {
      slug: "AVITO_DISCOUNT_50"
      source: {
        segments: {
          anyOf: ["AVITO_DISCOUNT_30"]
        }
      }
      dryRun: $dryRun
    }
  ) {
    import { id status }
    errors { code message path }
  }
}

# Read the imports, newest first. After a dryRun,
# the counts are a forecast. resultUrl is a link
# to a CSV with the outcome of each row.
query ReadImports {
  imports(first: 5) {
    nodes {
      id
      status
      progress
      rows
      counts { outcome count }
      removals
      rejections { line value message }
      resultUrl
      failure
    }
  }
}

# Apply an import after its dry run, or one that
# is HELD because it would remove many members.
mutation ApplyImport($import: ID!) {
  applyImport(
    input: { id: $import, allowRemovals: 0 }
  ) {
    import { id status failure }
    errors { code message path }
  }
}`,
    variables: { dryRun: true, import: "imp_1" },
  },
  {
    query: `
# 11. Read why a user is or is not in a segment,
#    now or, with asOf, at a time in the past.
query ExplainUser($user: ID!, $slug: String!) {
  explain(userId: $user, slug: $slug) {
    isIn
    reason
    summary
    since
    until
    steps { check passed detail }
  }
}`,
    variables: { user: "1", slug: "AVITO_DISCOUNT_30" },
  },
  {
    query: `
# 12. Find a user by the key of your own system.
#    The tab ChangeMembers has stored this one.
query FindByKey($key: String!) {
  userByKey(key: $key) {
    id
    key
    createdAt
    segments { slug }
  }
}`,
    variables: { key: "ada@example.com" },
  },
  {
    query: `
# 13. Read who changed segments, rollouts,
#    imports and API keys, newest first.
query ReadAuditLog {
  auditLog(first: 20) {
    nodes {
      at
      actor
      action
      target
      before
      after
      requestId
    }
    pageInfo { hasNextPage endCursor }
  }
}`,
  },
  {
    query: `
# 14. Watch every join and leave. Run it, then run
#    AddWithTtl in another tab of the browser. The
#    first message is empty: its cursor is the
#    point from which the feed continues.
subscription WatchChanges($filter: FeedFilter) {
  changes(filter: $filter) {
    cursor
    caughtUp
    events {
      at
      ... on MembershipEvent {
        entry {
          operation
          userId
          cause
          segment { slug }
        }
      }
    }
  }
}

# Read the changes after a cursor. Without one,
# \`start: EARLIEST\` begins with the oldest.
query ReadChanges($after: String) {
  changes(
    after: $after
    start: EARLIEST
    first: 10
  ) {
    cursor
    caughtUp
    events {
      cursor
      at
      ... on MembershipEvent {
        entry {
          operation
          userId
          cause
          segment { slug }
        }
      }
    }
  }
}`,
    variables: { filter: null, after: null },
  },
];
