/** Return what the server wrote into the page's `<meta>` element with this name. */
export function readPublicSetting(name: string): string | undefined {
  return document.querySelector<HTMLMetaElement>(`meta[name="segmentql-${name}"]`)?.content;
}
