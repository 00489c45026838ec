import { describe, expect, it } from "vitest";

import { isApiKey, readSession, type Session, storeSession } from "./stored-session";

class FakeStorage extends Map<string, string> {
  getItem(key: string): string | null {
    return this.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.set(key, value);
  }
  removeItem(key: string): void {
    this.delete(key);
  }
}

const SESSION: Session = { apiKey: "sgql_1", name: "support", role: "READER" };

describe("readSession", () => {
  it("returns the stored session", () => {
    const storage = new FakeStorage();
    storeSession(storage, SESSION);
    expect(readSession(storage)).toEqual(SESSION);
  });

  it.each([
    "",
    "{",
    "null",
    "7",
    "{}",
    JSON.stringify({ ...SESSION, apiKey: 1 }),
    JSON.stringify({ ...SESSION, apiKey: "ключ" }),
    JSON.stringify({ ...SESSION, role: "OWNER" }),
    JSON.stringify({ ...SESSION, name: null }),
  ])("removes the entry %j", (stored) => {
    const storage = new FakeStorage();
    storage.setItem("segmentql.session", stored);
    expect(readSession(storage)).toBeNull();
    expect(storage.size).toBe(0);
  });
});

it("an API key has only characters that a header can have", () => {
  expect(isApiKey("sgql_Ab-1~")).toBe(true);
  for (const text of ["", "ключ", "a b", "a\u00e9"]) {
    expect(isApiKey(text)).toBe(false);
  }
});
