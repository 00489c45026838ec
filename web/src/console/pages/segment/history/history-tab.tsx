/** TODO(helper) */
export function HistoryTab({ slug }: { slug: string }) {
    return <p>{slug}</p>;
}
