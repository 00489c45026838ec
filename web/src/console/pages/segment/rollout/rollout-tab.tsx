/** TODO(helper) */
export function RolloutTab({ slug }: { slug: string }) {
    return <p>{slug}</p>;
}
