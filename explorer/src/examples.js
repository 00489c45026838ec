// The tabs that a first visit opens, in the order of the story; a returning
// visitor finds their own. An entry has a `query`, and `variables` and `headers`
// (objects) where it needs them; its tab is titled by the operation's name.
//
// Lines stay within some 48 characters, the editor's width on a laptop. The first
// tab takes no variables: on a first visit GraphiQL 5.4 fills in its query only.

const now = new Date();

export const examples = [
  {
    query: `
# 1. Two segments: named sets of users, empty yet.
#    The second time, SEGMENT_ALREADY_EXISTS.
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
# 2. A user joins both, and leaves one of them
#    in 30 seconds. No need to create the user:
#    it is stored by the first change.
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
  # The user is in already. EXTEND, the default,
  # keeps the later end; REPLACE takes this one.
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
# 3. What is the user in, now? Run it again:
#    AVITO_DISCOUNT_50 ends at its expiresAt.
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
# 4. When did the user join and leave, and why?
#    Newest first. recordedAt is null until
#    a worker has tidied up; \`at\` is exact before.
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
# 5. A segment of 10 % of all users, in half
#    a minute of 50 %. Few users yet? In a shell
#    \`segmentql seed\` stores 5000.
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
# 6. How far is it? Run it again. In a shell
#    \`segmentql rollout watch AVITO_NEW_SEARCH\`.
#    A user stored later joins at once, or not,
#    by the percent in force.
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
# 7. The run button asks which of the four.
#    A pause also holds the stages ahead.
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

# A new plan. Whoever is in stays in.
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

# Out again with all whom it brought in; those
# whom somebody added by hand stay.
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
# 8. The month's joins and leaves as a CSV file.
#    downloadUrl works for 15 minutes and is new
#    at each read; \`report\` reads it again.
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
    // This month, in UTC. A user of null: everybody's.
    variables: {
      user: "1",
      year: now.getUTCFullYear(),
      month: now.getUTCMonth() + 1,
    },
  },
];
