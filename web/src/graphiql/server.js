// What the server wrote into the page's `<meta>` elements.

const readPublicSetting = (name) =>
  document.querySelector(`meta[name="segmentql-${name}"]`)?.content;

/** The path below which a proxy publishes the server, such as `/segmentql`, or an empty string. */
export const rootPath = readPublicSetting("root-path") ?? "";

/** Whether the server requires an API key. */
export const requiresKey = readPublicSetting("auth") === "required";

/** Whether the server has the console. */
export const hasConsole = readPublicSetting("console") !== "off";
