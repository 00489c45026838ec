import { segmentPath } from "../../../components/links";

/** The path of an import, or of the form of a new one. */
export function importPath(slug: string, item: string): string {
  return `${segmentPath(slug, "imports")}/${encodeURIComponent(item)}`;
}
