// Keep the members of a segment in a file. Usage: node out/members.js SLUG FILE
// Your service reads the file, or keeps the set in memory.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { argv } from "node:process";
import type { Client, CombinedError } from "@urql/core";
import { ChangesDocument, CreateExportDocument } from "./generated.js";
import { headers, once, openClient, WAIT_SECONDS, WAITING } from "./recipe.js";
import { withLimits } from "./retries.js";

const LOST_CURSOR = ["CURSOR_EXPIRED", "FEED_RESET"];

/** The members, and the position of the change feed up to which they are exact. */
interface Copy {
  segmentId: string;
  members: Set<string>;
  cursor: string;
}

function load(file: string): Copy | null {
  if (!existsSync(file)) return null;
  const [segmentId, members, cursor] = JSON.parse(readFileSync(file, "utf8"));
  return { segmentId, members: new Set(members), cursor };
}

/** Replaces the file, so that members and cursor always match. */
function save(file: string, { segmentId, members, cursor }: Copy): void {
  writeFileSync(`${file}.new`, JSON.stringify([segmentId, [...members], cursor]));
  renameSync(`${file}.new`, file);
}

/** Returns the members of an export, and the cursor after which the changes follow. */
async function exportMembers(client: Client, slug: string): Promise<Copy> {
  const input = { slug, waitSeconds: WAIT_SECONDS };
  const context = once(WAITING); // The same key waits for the same export.
  while (true) {
    const { data, error } = await client.mutation(CreateExportDocument, { input }, context);
    if (error) throw error;
    const { export: made, errors = [] } = data?.createExport ?? {};
    if (!made) throw new Error(errors[0]?.message);
    if (made.status === "FAILED") throw new Error("the export failed");
    if (made.downloadUrl && made.cursor) {
      const members = await download(made.downloadUrl);
      return { segmentId: made.segment.id, members, cursor: made.cursor };
    }
  }
}

async function download(url: string): Promise<Set<string>> {
  const response = await fetch(url, { signal: AbortSignal.timeout(60_000) });
  if (!response.ok) throw new Error(`the download failed with ${response.status}`);
  const rows = (await response.text()).trim().split("\n").slice(1);
  return new Set(rows.map((row) => row.slice(0, row.indexOf(","))));
}

/** Waits for the next changes, at most 30 seconds, and applies them. */
async function applyChanges(client: Client, slug: string, copy: Copy): Promise<void> {
  const variables = { after: copy.cursor, filter: { slugs: [slug] }, waitSeconds: WAIT_SECONDS };
  const context = { fetchOptions: withLimits(WAITING, { headers }) };
  const { data, error } = await client.query(ChangesDocument, variables, context);
  if (error || !data?.changes) throw error ?? new Error("no result");
  for (const event of data.changes.events) {
    if (event.__typename !== "MembershipEvent") continue; // an event of a later version
    const { operation, userId, segment } = event.entry;
    if (segment.id !== copy.segmentId) continue; // a later segment with the same slug
    if (operation === "JOINED") copy.members.add(userId);
    else if (operation === "LEFT") copy.members.delete(userId);
  }
  copy.cursor = data.changes.cursor;
}

const isLost = (error: unknown): boolean =>
  ((error as CombinedError).graphQLErrors ?? []).some(({ extensions }) =>
    LOST_CURSOR.includes(String(extensions.code)),
  );

async function follow(client: Client, slug: string, file: string): Promise<never> {
  let copy = load(file);
  while (true) {
    try {
      if (copy) await applyChanges(client, slug, copy);
      else copy = await exportMembers(client, slug);
      save(file, copy);
      console.log(copy.members.size);
    } catch (error) {
      if (isLost(error)) {
        copy = null;
        continue;
      }
      console.error(String(error));
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

await follow(openClient(), argv[2] ?? "", argv[3] ?? "");
