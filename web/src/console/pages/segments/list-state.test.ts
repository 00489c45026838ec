import { expect, test } from "vitest";

import { readListState } from "./list-state";

test("a new history entry shows the first page without filters", () => {
  expect(readListState(null)).toEqual({ search: "", includeDeleted: false, cursors: [] });
});

test("a stored state is read", () => {
  const state = { search: "beta", includeDeleted: true, cursors: ["a", "b"] };
  expect(readListState(state)).toEqual(state);
});

test("values of other types are ignored", () => {
  expect(readListState({ search: 1, includeDeleted: "yes", cursors: [1, "a"] })).toEqual({
    search: "",
    includeDeleted: false,
    cursors: ["a"],
  });
});
