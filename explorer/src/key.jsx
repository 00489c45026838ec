// The API key: a bar above GraphiQL, there where the server asks for keys.
//
// The key lives in this page's memory alone: never in storage, nor in the field once it is used.

import { useGraphiQLActions } from "@graphiql/react";
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { useEffect, useRef, useState } from "react";

const isRequired =
  document.querySelector('meta[name="segmentql-auth"]')?.content === "required";

const NEEDED =
  "An API key is needed. Make one with `segmentql keys create --role EDITOR --name NAME`," +
  " or ask an ADMIN for one.";

// The schema has no @defer, @stream or subscription: plain requests, one answer each.
const ask = createGraphiQLFetcher({ url: "/graphql", enableIncrementalDelivery: false });

const isAuthorization = (name) => name.toLowerCase() === "authorization";

export function useKey() {
  const [key, setKey] = useState("");
  const latest = useRef(key);
  latest.current = key;

  // One function for good, so that GraphiQL need not be told of each key.
  const [fetcher] = useState(() => async (params, options = {}) => {
    const headers = options.headers ?? {};
    if (!isRequired || Object.keys(headers).some(isAuthorization)) {
      return ask(params, options);
    }
    if (!latest.current) {
      return { errors: [{ message: NEEDED }] };
    }
    const authorization = `Bearer ${latest.current}`;
    return ask(params, { ...options, headers: { ...headers, authorization } });
  });
  return { key, setKey, fetcher };
}

export function KeyBar({ setKey, fetcher }) {
  const [status, setStatus] = useState(NEEDED);
  const [isRefused, setRefused] = useState(false);
  if (!isRequired) {
    return null;
  }

  const use = async (event) => {
    event.preventDefault();
    const field = event.target.elements.key;
    const given = field.value.trim().replace(/^bearer +/i, "");
    field.value = "";
    setKey("");
    setRefused(false);
    setStatus(given ? "Asking ..." : NEEDED);
    if (!given) {
      return;
    }
    try {
      const headers = { authorization: `Bearer ${given}` };
      const { data, errors } = await fetcher(
        { query: "query Viewer { viewer { name role } }", operationName: "Viewer" },
        { headers },
      );
      if (!data?.viewer) {
        throw new Error(errors?.[0]?.message ?? "The server says nothing of this key.");
      }
      setKey(given);
      setStatus(`You are ${data.viewer.name}, ${data.viewer.role}.`);
    } catch (error) {
      setRefused(true);
      setStatus(error.message);
    }
  };

  return (
    <form className="key-bar" onSubmit={use}>
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
      <output id="key-status" className={isRefused ? "refused" : undefined}>
        {status}
      </output>
    </form>
  );
}

// Has the schema fetched again with each other key; to be put inside GraphiQL.
export function SchemaOf({ value }) {
  const { introspect } = useGraphiQLActions();
  const before = useRef(value);
  useEffect(() => {
    if (value && value !== before.current) {
      introspect();
    }
    before.current = value;
  }, [value, introspect]);
  return null;
}
