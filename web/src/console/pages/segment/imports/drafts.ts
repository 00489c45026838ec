import type { ImportValues } from "./values";

// The API does not return the options of an import, and a page cannot read a chosen file again after
// it is reloaded. So the forms that were sent stay in the memory of the page.
const sent = new Map<string, ImportValues>();
const MAX_DRAFTS = 20;

let draft: { slug: string; values: ImportValues } | null = null;

/** Remember the form that made an import. */
export function rememberForm(importId: string, values: ImportValues): void {
  sent.set(importId, values);
  const [oldest] = sent.keys();
  if (sent.size > MAX_DRAFTS && oldest) {
    sent.delete(oldest);
  }
}

export function hasForm(importId: string): boolean {
  return sent.has(importId);
}

/** Begin the next form of a segment with the values that made an import. */
export function reuseForm(slug: string, importId: string, changes: Partial<ImportValues>): void {
  const values = sent.get(importId);
  draft = values ? { slug, values: { ...values, ...changes } } : null;
}

/** Return the values with which the next form of a segment begins, if there are some. */
export function takeDraft(slug: string): ImportValues | null {
  const taken = draft?.slug === slug ? draft.values : null;
  draft = null;
  return taken;
}
