import { Page } from "../../components/page";

export function ActivityPage(_props: { tab?: string | undefined }) {
    return <Page title="Activity">{null}</Page>;
}
