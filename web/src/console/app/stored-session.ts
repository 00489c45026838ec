// The session that is stored until the tab is closed.

import type { Role } from "../graphql/operations";

const STORAGE_KEY = "segmentql.session";

/** The roles, from the lowest to the highest. */
export const ROLES: readonly Role[] = ["EVALUATOR", "READER", "EDITOR", "ADMIN"];

/** The characters that an HTTP header can have. */
const API_KEY = /^[\x21-\x7e]+$/;

export interface Session {
  apiKey: string;
  name: string;
  role: Role;
}

type SessionStorage = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** Whether a text can be an API key. The browser cannot send other texts. */
export function isApiKey(text: string): boolean {
  return API_KEY.test(text);
}

/** Return the stored session, or null. An entry that is not a session is removed. */
export function readSession(storage: SessionStorage): Session | null {
  const stored = storage.getItem(STORAGE_KEY);
  const session = stored === null ? null : parseSession(stored);
  if (stored !== null && !session) {
    storage.removeItem(STORAGE_KEY);
  }
  return session;
}

export function storeSession(storage: SessionStorage, session: Session): void {
  storage.setItem(STORAGE_KEY, JSON.stringify(session));
}

export function removeSession(storage: SessionStorage): void {
  storage.removeItem(STORAGE_KEY);
}

function parseSession(stored: string): Session | null {
  let value: unknown;
  try {
    value = JSON.parse(stored);
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null) {
    return null;
  }
  const fields: Partial<Record<keyof Session, unknown>> = value;
  const { apiKey, name } = fields;
  const role = ROLES.find((known) => known === fields.role);
  return typeof apiKey === "string" && isApiKey(apiKey) && typeof name === "string" && role
    ? { apiKey, name, role }
    : null;
}
