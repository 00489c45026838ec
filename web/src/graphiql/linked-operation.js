// The operation that the console's link "Show as GraphQL" opens.

/**
 * Return the operation in the part of the address after `#`, and remove it from the address.
 *
 * GraphiQL shows it in a tab of its own. It keeps the tabs, so a reload must not add another one.
 */
export function takeLinkedOperation() {
  const parameters = new URLSearchParams(window.location.hash.slice(1));
  const query = parameters.get("query");
  if (!query) {
    return undefined;
  }
  window.history.replaceState(null, "", window.location.pathname);
  return { query, variables: parameters.get("variables") ?? undefined };
}
