/** TODO(helper) */
export function MembersTab({ slug }: { slug: string }) {
    return <p>{slug}</p>;
}
