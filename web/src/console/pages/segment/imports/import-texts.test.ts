import { describe, expect, it } from "vitest";

import { describeChanges, describeRejections, toSentence, describeStatus } from "./import-texts";

const RECORD = {
  mode: "ADD",
  status: "COMPLETED",
  rows: 6,
  progress: 1,
  removals: 2,
  counts: [
    { outcome: "JOINED", count: 3 },
    { outcome: "MALFORMED", count: 1 },
    { outcome: "OUT_OF_RANGE", count: 1 },
  ],
} as const;

function record(changes: object = {}) {
  return { ...RECORD, counts: [...RECORD.counts], ...changes };
}

describe("describeChanges", () => {
  it("says how many users join and leave", () => {
    const replace = record({ mode: "REPLACE" });
    expect(describeChanges(replace)).toBe("3 users join and 2 users leave.");
    expect(describeChanges(replace, true)).toBe("3 users joined and 2 users left.");
    expect(describeChanges(record({ counts: [{ outcome: "JOINED", count: 1 }] }))).toBe(
      "1 user joins.",
    );
    expect(describeChanges(record({ mode: "REMOVE", removals: 1 }))).toBe("1 user leaves.");
  });

  it("mentions changed ends only if there are some", () => {
    const counts = [{ outcome: "END_CHANGED", count: 2 }];
    expect(describeChanges(record({ mode: "REPLACE", counts, removals: null }))).toBe(
      "0 users join, 2 users get a new end, and 0 users leave.",
    );
  });
});

describe("describeRejections", () => {
  it("counts all kinds of rejected rows", () => {
    expect(describeRejections(record())).toBe("2 rows are rejected.");
    expect(describeRejections(record({ counts: [] }))).toBe("");
  });
});

describe("describeStatus", () => {
  it("says whether an import has begun", () => {
    const applying = record({ status: "APPLYING" });
    expect(describeStatus(applying)).toBe("The import is being applied.");
    expect(describeStatus({ ...applying, progress: 0 })).toContain("queued");
  });

  it("tells a forecast from a result", () => {
    expect(describeStatus(record({ status: "VALIDATED" }))).toContain("Nothing is changed yet.");
    expect(describeStatus(record())).not.toContain("yet");
  });

  it("says what to do with a refused file", () => {
    expect(describeStatus(record({ status: "REFUSED" }))).toContain("rejected rows");
    expect(describeStatus(record({ status: "REFUSED", counts: [] }))).toContain("its format");
  });
});

describe("toSentence", () => {
  it("begins with a capital and ends with a point", () => {
    expect(toSentence("the list has no user")).toBe("The list has no user.");
    expect(toSentence("Set `column`.")).toBe("Set column.");
    expect(toSentence("")).toBe("");
  });
});
