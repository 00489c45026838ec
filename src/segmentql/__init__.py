"""SegmentQL: a GraphQL server for users and the segments they belong to."""
