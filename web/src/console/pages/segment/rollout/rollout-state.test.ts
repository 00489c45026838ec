import { expect, test } from "vitest";

import {
  acceptsNewUsers,
  allowedActions,
  describeChanges,
  describeForScreenReader,
  pollingInterval,
  progressPercent,
  type Rollout,
} from "./rollout-state";

const NOW = Date.parse("2026-03-10T12:00:00Z");

const RUNNING: Rollout = {
  id: "rol_1",
  status: "RUNNING",
  percent: 5,
  enrollNewUsers: true,
  expiresAt: null,
  stages: [
    { percent: 5, startsAt: "2026-03-10T11:00:00Z", status: "ACTIVE" },
    { percent: 50, startsAt: "2026-03-10T13:00:00Z", status: "PENDING" },
  ],
  usersTotal: 1_000,
  usersSeen: 300,
  progress: 0.3,
  startedAt: null,
  finishedAt: null,
  failure: null,
};

test("allowedActions are those that the server accepts", () => {
  expect(allowedActions("WAITING")).toEqual(["pause", "cancel", "withdraw"]);
  expect(allowedActions("FAILED")).toEqual(["resume", "cancel", "withdraw"]);
  expect(allowedActions("COMPLETED")).toEqual(["cancel", "withdraw"]);
  expect(allowedActions("WITHDRAWING")).toEqual([]);
});

test("the page asks each second during a pass and in the minute before a stage", () => {
  expect(pollingInterval(RUNNING, NOW)).toBe(1_000);
  const waiting: Rollout = { ...RUNNING, status: "WAITING" };
  expect(pollingInterval(waiting, NOW)).toBe(10_000);
  expect(pollingInterval(waiting, Date.parse("2026-03-10T12:59:30Z"))).toBe(1_000);
  expect(pollingInterval(waiting, Date.parse("2026-03-10T13:00:30Z"))).toBe(1_000);
  expect(pollingInterval(waiting, Date.parse("2026-03-10T13:01:01Z"))).toBe(10_000);
  expect(pollingInterval({ ...RUNNING, status: "PAUSED" }, NOW)).toBeNull();
});

test("new users join until the rollout or its memberships end", () => {
  expect(acceptsNewUsers({ ...RUNNING, status: "FAILED" }, NOW)).toBe(true);
  expect(acceptsNewUsers({ ...RUNNING, status: "CANCELLED" }, NOW)).toBe(false);
  expect(acceptsNewUsers({ ...RUNNING, enrollNewUsers: false }, NOW)).toBe(false);
  const expired = { ...RUNNING, expiresAt: "2026-03-10T11:59:00Z" };
  expect(acceptsNewUsers(expired, NOW)).toBe(false);
});

test("progressPercent is 100 only at the end", () => {
  expect(progressPercent(0.9999)).toBe(99);
  expect(progressPercent(1)).toBe(100);
});

test("the announcement changes only with the status and each quarter", () => {
  expect(describeForScreenReader(RUNNING)).toBe(
    describeForScreenReader({ ...RUNNING, progress: 0.49 }),
  );
  expect(describeForScreenReader(RUNNING)).not.toBe(
    describeForScreenReader({ ...RUNNING, progress: 0.5 }),
  );
  expect(describeForScreenReader({ ...RUNNING, status: "PAUSED" })).toBe("The rollout is paused.");
});

test("describeChanges says how many users join and leave", () => {
  expect(describeChanges({ joining: 3, leaving: 2 })).toBe("3 users join and 2 users leave.");
  expect(describeChanges({ joining: 0, leaving: 1 })).toBe("No user joins and 1 user leaves.");
  expect(describeChanges({ joining: 0, leaving: 0 })).toBe("No user joins or leaves.");
  expect(describeChanges({ joining: 1, leaving: 0 }, true)).toBe(
    "Until the last stage is done, 1 user joins and no user leaves.",
  );
  expect(describeChanges({ joining: null, leaving: null })).toContain("not known");
});
