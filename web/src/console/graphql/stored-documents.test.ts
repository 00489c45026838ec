import { Client, createRequest, fetchExchange, mapExchange } from "@urql/core";
import { describe, expect, it } from "vitest";

import { DOCUMENT_IDS } from "./document-ids";
import { ChangesDocument, ViewerDocument } from "./operations";
import { storedDocument, streamParameters } from "./stored-documents";

describe("stored documents", () => {
    it("are sent by their ids", async () => {
        const bodies: unknown[] = [];
        const client = new Client({
            url: "http://server.example/graphql",
            preferGetMethod: false,
            exchanges: [mapExchange({ onOperation: storedDocument }), fetchExchange],
            fetch: async (_url, init) => {
                bodies.push(JSON.parse(String(init?.body)));
                return Response.json({ data: { viewer: null } });
            },
        });
        const result = await client.executeQuery(createRequest(ViewerDocument, {})).toPromise();
        expect(result.data).toEqual({ viewer: null });
        expect(bodies).toEqual([{ documentId: DOCUMENT_IDS.Viewer, variables: {} }]);
    });

    it("are named in the body of a subscription", () => {
        expect(streamParameters(ChangesDocument, { after: null })).toEqual({
            documentId: DOCUMENT_IDS.Changes,
            variables: { after: null },
        });
    });
});
