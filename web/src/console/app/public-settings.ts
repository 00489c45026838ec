/** Return what the server wrote into the page's `<meta>` element with this name. */
export function readPublicSetting(name: string): string | undefined {
  return document.querySelector<HTMLMetaElement>(`meta[name="segmentql-${name}"]`)?.content;
}

/** Return the path of the API and of the GraphiQL page, below the path at which a proxy publishes them. */
export function graphqlPath(): string {
  return `${readPublicSetting("root-path") ?? ""}/graphql`;
}
