import { expect, it } from "vitest";

import { FeedError, toFailure } from "./feed-errors";

const http = (status: number) =>
  Object.assign(new Error("Server responded"), { response: new Response(null, { status }) });

it.each([
  [http(401), "sign-in"],
  [http(403), "stop"],
  [http(400), "stop"],
  [http(429), "reconnect"],
  [http(503), "reconnect"],
  [new TypeError("Failed to fetch"), "reconnect"],
  [new FeedError("This API key is not valid.", "UNAUTHENTICATED"), "sign-in"],
  [new FeedError("Not allowed.", "FORBIDDEN"), "stop"],
  [new FeedError("Invalid.", "BAD_REQUEST"), "stop"],
  [new FeedError("Expired.", "CURSOR_EXPIRED"), "restart"],
  [new FeedError("The database is unavailable.", "UNAVAILABLE"), "reconnect"],
])("after %s the reaction is %s", (reason, reaction) => {
  expect(toFailure(reason).reaction).toBe(reaction);
});

it("describes the failure in sentences", () => {
  expect(toFailure(http(401)).message).toBe("The server rejects the API key.");
  expect(toFailure(http(503)).message).toBe("The server has an error (HTTP 503).");
});
