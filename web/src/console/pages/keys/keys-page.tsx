import { Page } from "../../components/page";

export function KeysPage() {
    return <Page title="API keys">{null}</Page>;
}
