// The bar above GraphiQL for the API key, if the server requires one.
//
// The key is kept only in the memory of the page. It is not stored, and the input is cleared.

import { useGraphiQLActions } from "@graphiql/react";
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { getOperationAST } from "graphql";
import { createClient } from "graphql-sse";
import { useEffect, useRef, useState } from "react";

import { requiresKey, rootPath } from "./server.js";

const GRAPHQL_PATH = `${rootPath}/graphql`;

const KEY_REQUIRED =
  "An API key is required. Create one with `segmentql keys create --role EDITOR --name NAME`," +
  " or ask an ADMIN for one.";

// The schema has no @defer and no @stream, so each query and mutation has one response.
const sendOnce = createGraphiQLFetcher({ url: GRAPHQL_PATH, enableIncrementalDelivery: false });

const sendRequest = (params, options) => {
  const { documentAST } = options; // absent if the page itself sends the request
  const operation = documentAST && getOperationAST(documentAST, params.operationName);
  return operation?.operation === "subscription"
    ? subscribe(params, options.headers)
    : sendOnce(params, options);
};

// Returns an async iterator. After a restart of the server the page shows the error. A subscription
// that starts again by itself would start at the original cursor.
const subscribe = (params, headers) =>
  createClient({ url: GRAPHQL_PATH, headers, retryAttempts: 0 }).iterate(params);

const isAuthorization = (name) => name.toLowerCase() === "authorization";

export function useApiKey() {
  const [key, setKey] = useState("");
  const latest = useRef(key);
  latest.current = key;

  // The function stays the same when the key changes, so that GraphiQL does not reset.
  const [fetcher] = useState(() => async (params, options = {}) => {
    const headers = options.headers ?? {};
    if (!requiresKey || Object.keys(headers).some(isAuthorization)) {
      return sendRequest(params, options);
    }
    if (!latest.current) {
      return { errors: [{ message: KEY_REQUIRED }] };
    }
    const authorization = `Bearer ${latest.current}`;
    return sendRequest(params, { ...options, headers: { ...headers, authorization } });
  });
  return { key, setKey, fetcher };
}

export function KeyBar({ setKey, fetcher }) {
  const [status, setStatus] = useState(KEY_REQUIRED);
  const [isRejected, setRejected] = useState(false);
  if (!requiresKey) {
    return null;
  }

  const submit = async (event) => {
    event.preventDefault();
    const input = event.target.elements.key;
    const newKey = input.value.trim().replace(/^bearer +/i, "");
    input.value = "";
    setKey("");
    setRejected(false);
    setStatus(newKey ? "Checking the key ..." : KEY_REQUIRED);
    if (!newKey) {
      return;
    }
    try {
      const headers = { authorization: `Bearer ${newKey}` };
      const { data, errors } = await fetcher(
        { query: "query Viewer { viewer { name role } }", operationName: "Viewer" },
        { headers },
      );
      if (!data?.viewer) {
        throw new Error(errors?.[0]?.message ?? "The server did not recognise this key.");
      }
      setKey(newKey);
      setStatus(`You are ${data.viewer.name}, ${data.viewer.role}.`);
    } catch (error) {
      setRejected(true);
      setStatus(error.message);
    }
  };

  return (
    <form className="key-bar" onSubmit={submit}>
      <label htmlFor="key">API key</label>
      <input
        id="key"
        name="key"
        type="password"
        autoComplete="off"
        spellCheck={false}
        placeholder="sgql_..."
        aria-describedby="key-status"
      />
      <button type="submit">Use key</button>
      <output id="key-status" className={isRejected ? "rejected" : undefined}>
        {status}
      </output>
    </form>
  );
}

// Fetches the schema again when the key changes. It must be a child of GraphiQL.
export function SchemaRefresher({ apiKey }) {
  const { introspect } = useGraphiQLActions();
  const previousKey = useRef(apiKey);
  useEffect(() => {
    if (apiKey && apiKey !== previousKey.current) {
      introspect();
    }
    previousKey.current = apiKey;
  }, [apiKey, introspect]);
  return null;
}
