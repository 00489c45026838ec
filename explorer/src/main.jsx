import "graphiql/setup-workers/vite";

import "graphiql/style.css";
import "@graphiql/plugin-explorer/style.css";
import "./page.css";

import { explorerPlugin } from "@graphiql/plugin-explorer";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import { examples } from "./examples.js";
import { KeyBar, SchemaOf, useKey } from "./key.jsx";

// Without GraphiQL's history plugin: it writes each request's headers, tokens
// included, to local storage, whatever `shouldPersistHeaders` says (5.4).
const plugins = [explorerPlugin()];

const json = (value) => value && JSON.stringify(value, null, 2);

const tabs = examples.map(({ query, variables, headers }) => ({
  query: query.trim(),
  variables: json(variables),
  headers: json(headers),
}));

function Page() {
  const { key, setKey, fetcher } = useKey();
  return (
    <>
      <KeyBar setKey={setKey} fetcher={fetcher} />
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
        <GraphiQL.Logo>
          SegmentQL
          <SchemaOf value={key} />
        </GraphiQL.Logo>
      </GraphiQL>
    </>
  );
}

createRoot(document.getElementById("graphiql")).render(<Page />);
