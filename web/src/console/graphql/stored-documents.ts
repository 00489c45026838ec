// Operations by the ids of their documents, for a server that executes only stored documents. The
// server knows the documents of the console from its static files.

import {
    type DocumentInput,
    getOperationName,
    makeOperation,
    type Operation,
    type TypedDocumentNode,
} from "@urql/core";

import { DOCUMENT_IDS } from "./document-ids";

/** Return an operation with the id of its document instead of the text. */
export function storedDocument(operation: Operation): Operation {
    const query = {
        kind: "Document",
        definitions: [],
        documentId: documentId(operation.query),
    } as unknown as TypedDocumentNode;
    return makeOperation(operation.kind, { ...operation, query } as Operation, operation.context);
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
