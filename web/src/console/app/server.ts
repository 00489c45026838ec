// What the server wrote into the page's `<meta>` elements.

import { readFact } from "./facts";

/** Whether the server requires an API key. */
export const requiresKey = readFact("auth") === "required";

/** Whether the server has the GraphiQL page. */
export const hasGraphiQL = readFact("graphiql") !== "off";
