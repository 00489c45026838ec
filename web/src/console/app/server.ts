// What the server wrote into the page's `<meta>` elements.

import { readPublicSetting } from "./public-settings";

/** Whether the server requires an API key. */
export const requiresKey = readPublicSetting("auth") === "required";

/** Whether the server has the GraphiQL page. */
export const hasGraphiQL = readPublicSetting("graphiql") !== "off";
