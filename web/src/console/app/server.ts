// What the server wrote into the page's `<meta>` elements.

function read(name: string): string | undefined {
    return document.querySelector<HTMLMetaElement>(`meta[name="segmentql-${name}"]`)?.content;
}

/** Whether the server requires an API key. */
export const requiresKey = read("auth") === "required";

/** Whether the server has the GraphiQL page. */
export const hasGraphiQL = read("graphiql") !== "off";
