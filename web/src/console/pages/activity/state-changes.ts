// What an entry of the audit log changed: its states before and after, compared field by field.

export interface FieldChange {
  field: string;
  /** Null if the field did not exist. */
  before: string | null;
  after: string | null;
}

/**
 * Compare two states.
 *
 * @param before A JSON object, or null if the target did not exist.
 * @param after A JSON object, or null if the target was deleted.
 * @returns The fields that differ, in the order of the states. Fields that are null on both sides,
 *   or that a new or deleted target does not have, are left out.
 */
export function compareStates(before: string | null, after: string | null): FieldChange[] {
  const old = parse(before);
  const current = parse(after);
  return [...new Set([...Object.keys(old), ...Object.keys(current)])]
    .map((field) => ({ field, before: format(old[field]), after: format(current[field]) }))
    .filter((change) => change.before !== change.after);
}

/** Return the slug in a state, or null if it has none. */
export function slugOf(state: string | null): string | null {
  const { slug } = parse(state);
  return typeof slug === "string" ? slug : null;
}

function parse(state: string | null): Record<string, unknown> {
  return state ? (JSON.parse(state) as Record<string, unknown>) : {};
}

function format(value: unknown): string | null {
  if (value === null || value === undefined) {
    return null;
  }
  if (Array.isArray(value)) {
    return value.map(format).join("; ") || null;
  }
  if (typeof value === "object") {
    const fields = Object.entries(value).filter(([, content]) => content !== null);
    return fields.map(([name, content]) => `${name} ${format(content)}`).join(", ") || null;
  }
  return String(value);
}
