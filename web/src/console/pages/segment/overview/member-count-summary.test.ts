import { expect, test } from "vitest";

import { describeMemberCounts } from "./member-count-summary";

const points = (...counts: number[]) => counts.map((count, i) => ({ at: i * 1000, count }));

test("growth is described with the lowest and the highest number", () => {
  const text = describeMemberCounts(points(5, 2, 9));
  expect(text).toMatch(/^4 more members than at /);
  expect(text).toContain("The lowest number is 2, the highest is 9.");
});

test("a loss of one member is singular", () => {
  expect(describeMemberCounts(points(5, 4))).toMatch(/^1 fewer member than at /);
});

test("a number that returns to its start is not a change", () => {
  expect(describeMemberCounts(points(5, 7, 5))).toMatch(/^As many members as at /);
});

test("a constant number has no lowest and highest", () => {
  expect(describeMemberCounts(points(3, 3))).toMatch(
    /^The number of members is the same at all times shown since /,
  );
});

test("without points there is no text", () => {
  expect(describeMemberCounts([])).toBe("");
});
