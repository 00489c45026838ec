import { describe, expect, it } from "vitest";

import { type ImportValues, INITIAL_VALUES, toField, toInput, validate } from "./values";

const file = new File(["1\n2\n"], "users.csv");

describe("toInput", () => {
  it("describes the file, and leaves the other source out", () => {
    const input = toInput("beta", { ...INITIAL_VALUES, file, anyOf: ["trial"] });
    expect(input.source).toEqual({ upload: { fileName: "users.csv", sizeBytes: 4 } });
    expect(input).toMatchObject({ slug: "beta", mode: "ADD", dryRun: true, maxRejected: 0 });
    expect(input.columnNumber).toBeUndefined();
  });

  it("leaves out the options of files for a list from segments", () => {
    const input = toInput("beta", {
      ...INITIAL_VALUES,
      source: "segments",
      anyOf: ["trial"],
      identity: "KEY",
    });
    expect(input.source).toEqual({ segments: { anyOf: ["trial"] } });
    expect(input.identity).toBeUndefined();
  });

  it("sends no end with REMOVE", () => {
    const values = { ...INITIAL_VALUES, file, kind: "after" as const, amount: 2 };
    expect(toInput("beta", values).ttlSeconds).toBe(172_800);
    const removal = toInput("beta", { ...values, mode: "REMOVE" });
    expect(removal.ttlSeconds).toBeUndefined();
    expect(removal).toMatchObject({ exclude: true, maxRemovedPercent: 20 });
  });
});

describe("toField", () => {
  it("finds the field of a typed error", () => {
    expect(toField(["source", "upload", "sizeBytes"])).toBe("file");
    expect(toField(["source", "segments", "noneOf", "3"])).toBe("noneOf");
    expect(toField(["source", "segments"])).toBe("anyOf");
    expect(toField(["ttlSeconds"])).toBe("amount");
    expect(toField(["column"])).toBe("column");
  });
});

function fieldsWithErrors(values: ImportValues): string[] {
  return Object.entries(validate(values)).flatMap(([field, error]) => (error ? [field] : []));
}

describe("validate", () => {
  it("needs a list", () => {
    expect(fieldsWithErrors(INITIAL_VALUES)).toEqual(["file"]);
    const segments = { ...INITIAL_VALUES, source: "segments" as const };
    expect(fieldsWithErrors(segments)).toEqual(["anyOf"]);
    expect(fieldsWithErrors({ ...segments, allOf: ["trial"] })).toEqual([]);
  });

  it("rejects an empty file, except if all members may be removed", () => {
    const values = { ...INITIAL_VALUES, file: new File([], "empty.csv") };
    expect(fieldsWithErrors(values)).toEqual(["file"]);
    expect(fieldsWithErrors({ ...values, allowEmpty: true })).toEqual(["file"]);
    const replacement = { ...values, mode: "REPLACE" as const, allowEmpty: true };
    expect(fieldsWithErrors(replacement)).toEqual([]);
  });

  it("rejects incomplete numbers", () => {
    const values = { ...INITIAL_VALUES, file, maxRejected: "-", maxRemovedPercent: "-" };
    expect(fieldsWithErrors(values)).toEqual(["maxRejected", "maxRemovedPercent"]);
  });

  it("needs an end, except if the users are removed", () => {
    const values = { ...INITIAL_VALUES, file, kind: "after" as const, amount: "" };
    expect(fieldsWithErrors(values)).toEqual(["amount"]);
    expect(fieldsWithErrors({ ...values, mode: "REMOVE" })).toEqual([]);
  });
});
