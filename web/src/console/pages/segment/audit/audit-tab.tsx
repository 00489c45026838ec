/** TODO(helper) */
export function AuditTab({ slug }: { slug: string }) {
    return <p>{slug}</p>;
}
