import { expect, it } from "vitest";

import type { ChangesSubscription } from "../../graphql/operations";
import { MAX_CHANGES, reduceFeed } from "./feed-state";

type Batch = ChangesSubscription["changes"];

const entry = {
  userId: "1",
  userKey: null,
  operation: "JOINED",
  at: "2026-03-01T00:00:00Z",
  recordedAt: "2026-03-01T00:00:00Z",
  cause: "MANUAL",
  actor: null,
  import: null,
  segment: { id: "seg_1", slug: "beta", deletedAt: null },
} as const;

function batch(...cursors: string[]): Batch {
  const events = cursors.map((cursor) => ({
    cursor,
    at: entry.at,
    entry: { ...entry, id: cursor },
  }));
  return { events, cursor: cursors.at(-1) ?? "start", caughtUp: true };
}

it("shows the newest change first", () => {
  const first = reduceFeed(
    { changes: [], status: "connecting" },
    { type: "batches", batches: [batch("a")] },
  );
  const second = reduceFeed(first, { type: "batches", batches: [batch("b", "c")] });
  expect(second.changes.map(({ cursor }) => cursor)).toEqual(["c", "b", "a"]);
  expect(second.status).toBe("live");
});

it("keeps the newest changes only", () => {
  const cursors = Array.from({ length: MAX_CHANGES + 5 }, (_, index) => String(index));
  const state = reduceFeed(
    { changes: [], status: "live" },
    { type: "batches", batches: [batch(...cursors)] },
  );
  expect(state.changes).toHaveLength(MAX_CHANGES);
  expect(state.changes[0]?.cursor).toBe(String(MAX_CHANGES + 4));
});

it("keeps the changes while the connection is interrupted", () => {
  const live = reduceFeed(
    { changes: [], status: "connecting" },
    { type: "batches", batches: [batch("a")] },
  );
  const state = reduceFeed(live, { type: "interrupted", error: "gone" });
  expect(state).toEqual({ changes: live.changes, status: "interrupted", error: "gone" });
});

it("adds several batches at once", () => {
  const batches = [batch("a", "b"), batch("c")];
  const state = reduceFeed({ changes: [], status: "live" }, { type: "batches", batches });
  expect(state.changes.map(({ cursor }) => cursor)).toEqual(["c", "b", "a"]);
});

it("keeps the same list of changes after an empty batch", () => {
  const live = reduceFeed(
    { changes: [], status: "live" },
    { type: "batches", batches: [batch("a")] },
  );
  const state = reduceFeed(live, { type: "batches", batches: [batch()] });
  expect(state.changes).toBe(live.changes);
});
