// Operations by the ids of their documents, for a server that executes only stored documents. The
// server knows the documents of the console from its static files.

import {
  type DocumentInput,
  getOperationName,
  makeOperation,
  mapExchange,
  type Operation,
  type TypedDocumentNode,
} from "@urql/core";

import { DOCUMENT_IDS } from "./document-ids";

/** An exchange that sends the id of each document instead of its text. */
export const storedDocumentExchange = mapExchange({
  onOperation: withDocumentId,
  // The exchanges before this one read the document, also to send the operation again.
  onResult: (result) => ({ ...result, operation: result.operation.context.withText }),
});

function withDocumentId(operation: Operation): Operation {
  if (operation.kind === "teardown") {
    return operation; // it is not sent
  }
  const query = {
    kind: "Document",
    definitions: [],
    documentId: documentId(operation.query),
  } as unknown as TypedDocumentNode;
  return makeOperation(operation.kind, { ...operation, query } as Operation, {
    ...operation.context,
    withText: operation,
  });
}

/** Return the body of a subscription with the id of its document instead of the text. */
export function streamParameters(document: DocumentInput, variables: Record<string, unknown>) {
  return { documentId: documentId(document), variables };
}

function documentId(document: DocumentInput): string {
  const name = typeof document === "string" ? undefined : getOperationName(document);
  const id = name && DOCUMENT_IDS[name];
  if (!id) {
    throw new Error(`The operation ${name} is not in the .graphql files of the console.`);
  }
  return id;
}
