import { cacheExchange, Client, createRequest, fetchExchange } from "@urql/core";
import { describe, expect, it } from "vitest";

import { DOCUMENT_IDS } from "./document-ids";
import { ChangesDocument, ViewerDocument } from "./operations";
import { storedDocumentExchange, streamParameters } from "./stored-documents";

describe("stored documents", () => {
  it("are sent by their ids", async () => {
    const bodies: unknown[] = [];
    const client = new Client({
      url: "http://server.example/graphql",
      preferGetMethod: false,
      exchanges: [cacheExchange, storedDocumentExchange, fetchExchange],
      fetch: async (_url, init) => {
        bodies.push(JSON.parse(String(init?.body)));
        return Response.json({ data: { viewer: null } });
      },
    });
    const request = createRequest(ViewerDocument, {});
    for (const requestPolicy of ["cache-first", "network-only"] as const) {
      const result = await client.executeQuery(request, { requestPolicy }).toPromise();
      expect(result.data).toEqual({ viewer: null });
      expect(result.operation.query.definitions).toHaveLength(1);
    }
    const body = { documentId: DOCUMENT_IDS.Viewer, variables: {} };
    expect(bodies).toEqual([body, body]);
  });

  it("are named in the body of a subscription", () => {
    expect(streamParameters(ChangesDocument, { after: null })).toEqual({
      documentId: DOCUMENT_IDS.Changes,
      variables: { after: null },
    });
  });
});
