import { Page } from "../../components/page";

export function ReportsPage() {
    return <Page title="Reports">{null}</Page>;
}
