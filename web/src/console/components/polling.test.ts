import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { jobPollingInterval, startPolling } from "./polling";

class FakeDocument extends EventTarget {
  hidden = false;

  setHidden(hidden: boolean) {
    this.hidden = hidden;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

describe("startPolling", () => {
  const refresh = vi.fn();
  let page: FakeDocument;
  let stop: () => void;

  beforeEach(() => {
    vi.useFakeTimers();
    refresh.mockClear();
    page = new FakeDocument();
    stop = startPolling(refresh, 10_000, page);
  });

  afterEach(() => {
    stop();
    vi.useRealTimers();
  });

  it("refreshes at the interval", () => {
    vi.advanceTimersByTime(30_000);
    expect(refresh).toHaveBeenCalledTimes(3);
  });

  it("refreshes when the tab becomes visible after a skipped refresh", () => {
    page.setHidden(true);
    vi.advanceTimersByTime(60_000);
    expect(refresh).not.toHaveBeenCalled();
    page.setHidden(false);
    expect(refresh).toHaveBeenCalledTimes(1);
  });

  it("does not refresh when the tab becomes visible before the interval is over", () => {
    page.setHidden(true);
    vi.advanceTimersByTime(5_000);
    page.setHidden(false);
    expect(refresh).not.toHaveBeenCalled();
  });

  it("stops", () => {
    page.setHidden(true);
    vi.advanceTimersByTime(60_000);
    stop();
    page.setHidden(false);
    vi.advanceTimersByTime(60_000);
    expect(refresh).not.toHaveBeenCalled();
  });
});

describe("jobPollingInterval", () => {
  const now = Date.parse("2026-03-01T00:10:00Z");
  const job = (status: string, createdAt: string) => ({ status, createdAt });

  it("is null if all jobs are finished", () => {
    expect(jobPollingInterval([job("READY", "2026-03-01T00:00:00Z")], now)).toBeNull();
  });

  it("is a second for a running job and for a new one", () => {
    expect(jobPollingInterval([job("RUNNING", "2026-03-01T00:00:00Z")], now)).toBe(1_000);
    expect(jobPollingInterval([job("QUEUED", "2026-03-01T00:09:30Z")], now)).toBe(1_000);
  });

  it("is longer for a job that waits for a worker", () => {
    expect(jobPollingInterval([job("QUEUED", "2026-03-01T00:08:59Z")], now)).toBe(10_000);
  });
});
