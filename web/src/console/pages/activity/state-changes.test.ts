import { expect, it } from "vitest";

import { compareStates } from "./state-changes";

it("returns only the fields that differ", () => {
  const before = '{"slug": "beta", "name": "Beta", "version": 1}';
  const after = '{"slug": "beta", "name": "Beta users", "version": 2}';
  expect(compareStates(before, after)).toEqual([
    { field: "name", before: "Beta", after: "Beta users" },
    { field: "version", before: "1", after: "2" },
  ]);
});

it("returns all fields of a new target that are not null", () => {
  expect(compareStates(null, '{"slug": "beta", "name": null}')).toEqual([
    { field: "slug", before: null, after: "beta" },
  ]);
});

it("writes lists and objects as text", () => {
  const after =
    '{"counts": {"JOINED": 3, "BLANK": 1}, "stages": [{"percent": 5}, {"percent": 50}]}';
  expect(compareStates(null, after).map((change) => change.after)).toEqual([
    "JOINED 3, BLANK 1",
    "percent 5; percent 50",
  ]);
});

it("compares lists by their values", () => {
  const before = '{"stages": [{"percent": 5}]}';
  const after = '{"stages": [{"percent": 50}]}';
  expect(compareStates(before, before)).toEqual([]);
  expect(compareStates(before, after)).toEqual([
    { field: "stages", before: "percent 5", after: "percent 50" },
  ]);
});
