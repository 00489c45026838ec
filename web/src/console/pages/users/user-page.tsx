import { Page } from "../../components/page";

export function UserPage(_props: { id: string }) {
    return <Page title="User">{null}</Page>;
}
