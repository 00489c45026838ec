import { describe, expect, it, vi } from "vitest";

import { createGate, groupErrors } from "./use-submission";

describe("groupErrors", () => {
  const values = { slug: "", rollout: { stages: [{ percent: 1 }] } };
  const join = (path: string[]) => path.join(".");

  it("assigns an error to the field of its path", () => {
    const errors = [{ message: "too long", path: ["slug"] }];
    expect(groupErrors(errors, values, join)).toEqual({
      fields: { slug: "too long" },
      others: [],
    });
  });

  it("follows positions in lists", () => {
    const errors = [{ message: "at most 100", path: ["rollout", "stages", "0", "percent"] }];
    expect(groupErrors(errors, values, join).fields).toEqual({
      "rollout.stages.0.percent": "at most 100",
    });
  });

  it("keeps errors that belong to no field", () => {
    const errors = [{ message: "no such segment", path: ["rollout", "stages", "1"] }];
    expect(groupErrors(errors, values, join)).toEqual({
      fields: {},
      others: ["no such segment"],
    });
  });
});

describe("createGate", () => {
  it("runs no second action at the same time", async () => {
    const runOnce = createGate();
    const second = vi.fn(async () => 2);
    const results = await Promise.all([runOnce(async () => 1), runOnce(second)]);
    expect(results).toEqual([1, null]);
    expect(second).not.toHaveBeenCalled();
  });

  it("runs the next action after the first has failed", async () => {
    const runOnce = createGate();
    await expect(runOnce(() => Promise.reject(new Error("failed")))).rejects.toThrow("failed");
    expect(await runOnce(async () => 2)).toBe(2);
  });
});
