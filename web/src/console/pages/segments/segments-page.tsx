import { Page } from "../../components/page";

export function SegmentsPage() {
    return <Page title="Segments">{null}</Page>;
}
