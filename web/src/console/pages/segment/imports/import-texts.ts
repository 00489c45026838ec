// What the console says about an import.

import { formatNumber } from "../../../format";
import type { ImportRowFragment, ImportStatus, RowOutcome } from "../../../graphql/operations";

/** The statuses in which a worker has something to do. */
export const ACTIVE: readonly ImportStatus[] = ["QUEUED", "VALIDATING", "APPLYING"];

/** The statuses that never change. */
export const FINISHED: readonly ImportStatus[] = ["COMPLETED", "REFUSED", "FAILED", "CANCELLED"];

export const REJECTED: readonly RowOutcome[] = ["MALFORMED", "OUT_OF_RANGE"];

type Import = Pick<
  ImportRowFragment,
  "status" | "mode" | "counts" | "removals" | "rows" | "progress"
>;

export function countRows({ counts }: Pick<Import, "counts">, ...outcomes: RowOutcome[]): number {
  return counts
    .filter(({ outcome }) => outcomes.includes(outcome))
    .reduce((sum, { count }) => sum + count, 0);
}

/**
 * Return a sentence such as "3 users join and 2 users leave."
 *
 * @param isDone Whether the changes are made: "3 users joined and 2 users left."
 */
export function describeChanges(record: Import, isDone = false): string {
  const [join, leave, end] = isDone
    ? ["joined", "left", "got a new end"]
    : ["join", "leave", "get a new end"];
  const [joins, leaves, ends] = isDone ? [join, leave, end] : ["joins", "leaves", "gets a new end"];
  const users = (count: number, one: string | undefined, many: string | undefined) =>
    `${formatNumber(count)} ${count === 1 ? `user ${one}` : `users ${many}`}`;
  const changed = countRows(record, "END_CHANGED");
  const parts = [
    ...(record.mode === "REMOVE" ? [] : [users(countRows(record, "JOINED"), joins, join)]),
    ...(changed ? [users(changed, ends, end)] : []),
    ...(record.mode === "ADD" ? [] : [users(record.removals ?? 0, leaves, leave)]),
  ];
  return `${new Intl.ListFormat("en").format(parts)}.`;
}

/** Return a sentence about the rejected rows, or an empty text if there are none. */
export function describeRejections(record: Import): string {
  const rejected = countRows(record, ...REJECTED);
  if (rejected === 0) {
    return "";
  }
  return rejected === 1 ? "1 row is rejected." : `${formatNumber(rejected)} rows are rejected.`;
}

/** Return what the status means, and what the person can do. */
export function describeStatus(record: Import): string {
  switch (record.status) {
    case "AWAITING_UPLOAD":
      return (
        "The import waits for its file, for 24 hours after it was created. If the upload " +
        "was interrupted, cancel this import and import the list again."
      );
    case "QUEUED":
      return "The import is queued.";
    case "VALIDATING":
      return "The list is being checked. Nothing is changed yet.";
    case "VALIDATED":
      return `If you apply the import: ${describeChanges(record)} Nothing is changed yet. You can apply it for 7 days.`;
    case "HELD":
      return `If you apply the import: ${describeChanges(record)} Nothing is changed yet. The import waits 7 days for a confirmation.`;
    case "APPLYING":
      return record.progress > 0
        ? "The import is being applied."
        : "The import is queued, or waits for an earlier import of this segment.";
    case "COMPLETED":
      return `The import is complete. ${describeChanges(record, true)}`;
    case "REFUSED":
      return countRows(record, ...REJECTED) > 0
        ? "Nothing is changed. Correct the rejected rows, or import the list again and accept them under More options."
        : "Nothing is changed. Correct the file or its format, and import it again.";
    case "FAILED":
      return `The import stopped. ${describeChanges(record, true)} These changes stay. You can import the list again: users who are members already do not change.`;
    case "CANCELLED":
      return record.rows === null || record.removals === null
        ? "The import is cancelled. Nothing is changed."
        : `The import is cancelled. ${describeChanges(record, true)} These changes stay.`;
    default:
      return "";
  }
}

/** Return the reason of the server as a sentence. */
export function describeFailure(record: Import & Pick<ImportRowFragment, "failure">): string {
  // The reason of the server names the input field, which the form shows under another name.
  return (
    (record.status === "REFUSED" && describeRejections(record)) || toSentence(record.failure ?? "")
  );
}

/** Return a text such as "the list has no user" as a sentence. */
export function toSentence(reason: string): string {
  const text = reason.trim().replaceAll("`", "");
  const end = /[.!?]$/.test(text) ? "" : ".";
  return text && text.charAt(0).toUpperCase() + text.slice(1) + end;
}
