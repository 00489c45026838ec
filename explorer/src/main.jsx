import "graphiql/setup-workers/vite";

import "graphiql/style.css";
import "@graphiql/plugin-explorer/style.css";
import "./page.css";

import { explorerPlugin } from "@graphiql/plugin-explorer";
import { createGraphiQLFetcher } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import { examples } from "./examples.js";

// The schema has no @defer, @stream or subscription: plain requests, one answer each.
const fetcher = createGraphiQLFetcher({ url: "/graphql", enableIncrementalDelivery: false });

// Without GraphiQL's history plugin: it writes each request's headers, tokens
// included, to local storage, whatever `shouldPersistHeaders` says (5.4).
const plugins = [explorerPlugin()];

const json = (value) => value && JSON.stringify(value, null, 2);

const tabs = examples.map(({ query, variables, headers }) => ({
  query: query.trim(),
  variables: json(variables),
  headers: json(headers),
}));

createRoot(document.getElementById("graphiql")).render(
  <GraphiQL
    fetcher={fetcher}
    plugins={plugins}
    defaultTabs={tabs}
    defaultEditorToolsVisibility="variables"
    isHeadersEditorEnabled
    shouldPersistHeaders={false}
    showPersistHeadersSettings={false}
    inputValueDeprecation
  >
    <GraphiQL.Logo>SegmentQL</GraphiQL.Logo>
  </GraphiQL>,
);
