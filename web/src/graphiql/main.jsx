import "graphiql/setup-workers/vite";

import "graphiql/style.css";
import "@graphiql/plugin-explorer/style.css";
import "./page.css";

import { explorerPlugin } from "@graphiql/plugin-explorer";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import { examples } from "./examples.js";
import { takeLinkedOperation } from "./linked-operation.js";
import { KeyBar, SchemaRefresher, useApiKey } from "./key.jsx";
import { hasConsole, rootPath } from "./server.js";

// GraphiQL's history plugin is left out: it stores the headers of each request, including API keys,
// in local storage even if `shouldPersistHeaders` is false (5.4).
const plugins = [explorerPlugin()];

const toJson = (value) => value && JSON.stringify(value, null, 2);

const tabs = examples.map(({ query, variables, headers }) => ({
  query: query.trim(),
  variables: toJson(variables),
  headers: toJson(headers),
}));

const linkedOperation = takeLinkedOperation();

function Page() {
  const { key, setKey, fetcher } = useApiKey();
  return (
    <>
      <KeyBar setKey={setKey} fetcher={fetcher} />
      <GraphiQL
        fetcher={fetcher}
        plugins={plugins}
        defaultTabs={linkedOperation ? [linkedOperation, ...tabs] : tabs}
        initialQuery={linkedOperation?.query}
        initialVariables={linkedOperation?.variables}
        defaultEditorToolsVisibility="variables"
        isHeadersEditorEnabled
        shouldPersistHeaders={false}
        showPersistHeadersSettings={false}
        inputValueDeprecation
      >
        <GraphiQL.Logo>
          {hasConsole ? <a href={`${rootPath}/`}>SegmentQL</a> : "SegmentQL"}
          <SchemaRefresher apiKey={key} />
        </GraphiQL.Logo>
      </GraphiQL>
    </>
  );
}

createRoot(document.getElementById("graphiql")).render(<Page />);
