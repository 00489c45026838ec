// A plugin of GraphQL Code Generator: the operations of the console as stored documents.
//
// With `output: "manifest"` it writes the text of each operation by the hash of the text, for the
// server, and with `output: "ids"` the id of each operation by its name, for the console.

import { createHash } from "node:crypto";

import { formatDocument } from "@urql/core";
import { print, visit } from "graphql";

export function plugin(_schema, files, { output }) {
  const definitions = files.flatMap((file) => file.document.definitions);
  const fragments = new Map(
    definitions
      .filter((definition) => definition.kind === "FragmentDefinition")
      .map((fragment) => [fragment.name.value, fragment]),
  );
  const operations = definitions
    .filter((definition) => definition.kind === "OperationDefinition")
    .map((operation) => [operation.name.value, textOf(operation, fragments)])
    .sort(([name], [other]) => (name < other ? -1 : 1));
  if (output === "manifest") {
    const texts = operations.map(([, text]) => [hashOf(text), text]);
    return JSON.stringify(Object.fromEntries(texts), null, 2);
  }
  const ids = operations.map(([name, text]) => [name, `sha256:${hashOf(text)}`]);
  return (
    "/** The ids of the operations, by their names. */\n" +
    `export const DOCUMENT_IDS: Record<string, string> = ${JSON.stringify(Object.fromEntries(ids), null, 4)};\n`
  );
}

/** Return an operation with its fragments, and with the `__typename` that the cache needs. */
function textOf(operation, fragments) {
  const used = new Set();
  const collect = (node) =>
    visit(node, {
      FragmentSpread(spread) {
        const name = spread.name.value;
        if (!used.has(name)) {
          used.add(name);
          collect(fragments.get(name));
        }
      },
    });
  collect(operation);
  const definitions = [operation, ...[...used].map((name) => fragments.get(name))];
  return print(formatDocument({ kind: "Document", definitions }));
}

function hashOf(text) {
  return createHash("sha256").update(text).digest("hex");
}
