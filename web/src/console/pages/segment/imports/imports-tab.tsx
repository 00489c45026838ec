import { useParams } from "wouter";

import { useSession } from "../../../app/session";
import { ImportDetail } from "./import-detail";
import { ImportForm } from "./import-form";
import { ImportList } from "./import-list";

/** The list of imports, the form of a new one (`imports/new`), or one import (`imports/imp_1`). */
export function ImportsTab({ slug }: { slug: string }) {
  const { item } = useParams<{ item?: string }>();
  const { hasRole } = useSession();
  if (item === "new" && hasRole("EDITOR")) {
    return <ImportForm slug={slug} />;
  }
  if (item && item !== "new") {
    return <ImportDetail key={item} slug={slug} id={item} />;
  }
  return <ImportList slug={slug} />;
}
