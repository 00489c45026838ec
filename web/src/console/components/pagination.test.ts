import { expect, it, vi } from "vitest";

import { followsChange, toPagination } from "./pagination";

it("goes to the next page", () => {
  const setCursors = vi.fn();
  toPagination("", ["a"], setCursors).next("b");
  expect(setCursors).toHaveBeenCalledWith(["a", "b"]);
});

it("does not go to the current page again", () => {
  const setCursors = vi.fn();
  toPagination("", ["a", "b"], setCursors).next("b");
  expect(setCursors).not.toHaveBeenCalled();
});

it("has another key for each list and each page", () => {
  const keys = [
    toPagination("", [], vi.fn()).key,
    toPagination("", ["a"], vi.fn()).key,
    toPagination("beta", [], vi.fn()).key,
  ];
  expect(new Set(keys).size).toBe(3);
});

it("knows that a page's data are those of the page before", () => {
  const first = { hasNextPage: true };
  const seen = { key: "1", pageInfo: first };
  expect(followsChange(seen, "2", first)).toBe(true);
  expect(followsChange(seen, "2", { hasNextPage: true })).toBe(false);
  expect(followsChange(seen, "1", first)).toBe(false);
});
