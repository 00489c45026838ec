/** TODO(helper) */
export function ExportsTab({ slug }: { slug: string }) {
    return <p>{slug}</p>;
}
