import { AuditLog } from "../../activity/audit-log";

/** What was changed of a segment, its rollouts, imports and exports. */
export function AuditTab({ slug }: { slug: string }) {
  return <AuditLog filters={{ slug }} />;
}
