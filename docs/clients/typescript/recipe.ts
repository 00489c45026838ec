// SegmentQL with urql and the types of graphql-codegen. Usage: node out/recipe.js USER_KEY YEAR MONTH
import { randomUUID } from "node:crypto";
import { argv } from "node:process";
import { pathToFileURL } from "node:url";
import { Client, fetchExchange, type OperationContext } from "@urql/core";
import {
  type Cause,
  CreateReportDocument,
  CreateUserDocument,
  HistoryDocument,
  UserSegmentsDocument,
} from "./generated.js";
import { type Limits, retryingFetch, withLimits } from "./retries.js";

export const WAIT_SECONDS = 30;
const DEFAULTS: Limits = { attemptMs: 2000, totalMs: 30_000 };
/** For calls with `waitSeconds`, for which the service waits. */
export const WAITING: Limits = { attemptMs: (WAIT_SECONDS + 10) * 1000, totalMs: 120_000 };
const apiKey = process.env.SEGMENTQL_API_KEY;
export const headers: Record<string, string> = apiKey ? { authorization: `Bearer ${apiKey}` } : {};

/** Without `cacheExchange`: members.ts is the cache that the service keeps current. */
export const openClient = (): Client =>
  new Client({
    url: `${process.env.SEGMENTQL_URL ?? "http://127.0.0.1:8080"}/graphql`,
    exchanges: [fetchExchange],
    preferGetMethod: false,
    fetch: retryingFetch(DEFAULTS),
    fetchOptions: { headers },
  });

/** Options of a mutation. The key is the same for all attempts of the call. */
export const once = (limits = DEFAULTS): Partial<OperationContext> => ({
  fetchOptions: withLimits(limits, {
    headers: { ...headers, "idempotency-key": randomUUID() },
  }),
});

/** Returns the segments of a user within half a second, for use in a request of your service. */
async function segmentsOf(client: Client, id: string): Promise<Set<string>> {
  // urql replaces `signal` of `fetchOptions`, so that the limit is an option of `retryingFetch`.
  const context = { fetchOptions: withLimits({ attemptMs: 200, totalMs: 500 }, { headers }) };
  const { data } = await client.query(UserSegmentsDocument, { id }, context);
  // The empty set is your default if SegmentQL is unavailable.
  return new Set(data?.user?.segments.map(({ slug }) => slug));
}

/** Creates a user, and returns its id, and the time of its creation if it is new. */
async function createUser(client: Client, key: string): Promise<{ id: string; createdAt?: Date }> {
  const { data, error } = await client.mutation(CreateUserDocument, { input: { key } }, once());
  if (error || !data?.createUser) throw error ?? new Error("no result");
  const { user, errors } = data.createUser;
  for (const rejection of errors) {
    switch (rejection.__typename) {
      case "UserAlreadyExists":
        return { id: rejection.user.id };
      default: {
        // Every other type, and those of later versions, have the fields of `MutationError`.
        const { __typename, code, path, message } = rejection;
        throw new Error(`${__typename} ${code} [${path}]: ${message}`);
      }
    }
  }
  if (!user) throw new Error("no result");
  // A Date has milliseconds. Keep the string if you send it back, for example as `asOf`.
  return { id: user.id, createdAt: new Date(user.createdAt) };
}

/** Yields the joins and leaves of a user, newest first, page by page. */
async function* historyOf(client: Client, userId: string) {
  let after: string | null = null;
  do {
    const variables: { userId: string; first: number; after: string | null } = {
      userId,
      first: 2,
      after,
    };
    const result = await client.query(HistoryDocument, variables);
    if (result.error || !result.data?.history) throw result.error ?? new Error("no result");
    const { nodes, pageInfo } = result.data.history;
    yield* nodes;
    after = pageInfo.hasNextPage ? pageInfo.endCursor : null;
  } while (after);
}

/** Without `default`, the compiler rejects the function. */
function describe(cause: Cause): string {
  switch (cause) {
    case "TTL":
      return "expired";
    default:
      return cause;
  }
}

/** Creates a report, waits for it, and returns its number of rows. */
async function createReport(client: Client, userId: string, year: number, month: number) {
  const { data, error } = await client.mutation(
    CreateReportDocument,
    { input: { userId, year, month, waitSeconds: WAIT_SECONDS } },
    once(WAITING),
  );
  if (error || !data?.createReport?.report) {
    throw error ?? new Error(data?.createReport?.errors[0]?.message);
  }
  return data.createReport.report.rowCount;
}

async function main(key: string, year: number, month: number): Promise<void> {
  const client = openClient();
  const { id, createdAt } = await createUser(client, key);
  console.log("created", id, createdAt instanceof Date);
  console.log("exists", (await createUser(client, key)).id);
  await createUser(client, "").catch((error: Error) => console.log(error.message));
  console.log("segments", ...(await segmentsOf(client, "1")));
  for await (const { operation, segment, cause, at } of historyOf(client, "1")) {
    console.log(operation, segment.slug, describe(cause), Number.isFinite(Date.parse(at)));
  }
  console.log("rows", await createReport(client, "1", year, month));
}

if (import.meta.url === pathToFileURL(argv[1] ?? "").href) {
  await main(argv[2] ?? "", Number(argv[3]), Number(argv[4]));
}
