import { describe, expect, it } from "vitest";

import { describeUploadFailure, failureOf } from "./upload";

const EXPIRES_AT = "2026-11-28T12:00:00.000000Z";
const BEFORE = Date.parse("2026-11-28T11:00:00Z");
const AFTER = Date.parse("2026-11-28T13:00:00Z");

describe("failureOf", () => {
  it("says whether the store took the file", () => {
    expect(failureOf(200, EXPIRES_AT, BEFORE)).toBeNull();
    expect(failureOf(403, EXPIRES_AT, BEFORE)).toBe("rejected");
    expect(failureOf(403, EXPIRES_AT, AFTER)).toBe("expired");
    expect(failureOf(503, EXPIRES_AT, BEFORE)).toBe("unreachable");
  });
});

describe("describeUploadFailure", () => {
  it("names the store without the secret part of the link", () => {
    const message = describeUploadFailure("unreachable", "https://store.example/bucket/x?sig=1");
    expect(message).toContain("https://store.example ");
    expect(message).not.toContain("sig");
  });
});
