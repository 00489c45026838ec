/** TODO(helper) */
export function OverviewTab({ slug }: { slug: string }) {
    return <p>{slug}</p>;
}
