import { expect, it } from "vitest";

import { nextShown } from "./last-data";

const shown = { key: "beta", data: { segment: "beta" } };

it("keeps the data if a repeated request fails without data", () => {
  expect(nextShown(shown, "beta", { data: undefined, error: "no answer" })).toBe(shown);
});

it("keeps the data if a repeated request fails with partial data", () => {
  expect(nextShown(shown, "beta", { data: { segment: "" }, error: "timeout" })).toBe(shown);
});

it("shows new data", () => {
  const data = { segment: "beta, renamed" };
  expect(nextShown(shown, "beta", { data })).toEqual({ key: "beta", data });
});

it("does not show the data of other variables after an error", () => {
  expect(nextShown(shown, "gamma", { data: undefined, error: "no answer" })).toEqual({
    key: "gamma",
    data: undefined,
  });
});

it("does not keep the data of the previous variables, shown meanwhile, after an error", () => {
  const meanwhile = nextShown(shown, "gamma", { data: shown.data });
  expect(meanwhile.data).toBe(shown.data);
  expect(nextShown(meanwhile, "gamma", { error: "no answer" }).data).toBeUndefined();
});

it("shows partial data if there are no others", () => {
  const partial = { segment: "" };
  const first = { key: "beta", data: undefined };
  expect(nextShown(first, "beta", { data: partial, error: "timeout" }).data).toBe(partial);
});
