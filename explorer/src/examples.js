// The tabs that a first visit opens, in the order of the story; a returning
// visitor finds their own. An entry has a `query`, and `variables` and `headers`
// (objects) where it needs them; its tab is titled by the operation's name.
//
// Lines stay within some 48 characters, the editor's width on a laptop. The first
// tab takes no variables: on a first visit GraphiQL 5.4 fills in its query only.

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
];
