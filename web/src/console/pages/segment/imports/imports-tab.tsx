/** TODO(helper) */
export function ImportsTab({ slug }: { slug: string }) {
    return <p>{slug}</p>;
}
