import { Button, Skeleton, Table, Text } from "@mantine/core";
import { UserPlus } from "lucide-react";
import { useState } from "react";
import { useQuery } from "urql";

import { useSession } from "../../app/session";
import { ErrorAlert } from "../../components/errors";
import { UserLink } from "../../components/links";
import { Page, ShowAsGraphQL } from "../../components/page";
import { PageButtons, usePages } from "../../components/pages";
import { Time } from "../../components/values";
import { UserListDocument } from "../../graphql/operations";
import { Section } from "./section";
import { StoreUser } from "./store-user";
import { UserSearch } from "./user-search";

export function UsersPage() {
    const { may } = useSession();
    const [storing, setStoring] = useState(false);
    return (
        <Page
            title="Users"
            description="Find a user by id or key to see the user's segments and history."
            actions={
                may("EDITOR") && (
                    <Button
                        leftSection={<UserPlus size={16} aria-hidden />}
                        onClick={() => setStoring(true)}
                    >
                        Store a user
                    </Button>
                )
            }
        >
            <UserSearch />
            <UserList />
            <StoreUser opened={storing} onClose={() => setStoring(false)} />
        </Page>
    );
}

function UserList() {
    const pages = usePages();
    const variables = { after: pages.after };
    const [{ data, error, fetching }, refresh] = useQuery({
        query: UserListDocument,
        variables,
    });
    const users = data?.users?.nodes;
    return (
        <Section
            title="Stored users"
            actions={<ShowAsGraphQL document={UserListDocument} variables={variables} />}
        >
            <ErrorAlert error={error} onRetry={refresh} />
            {!users && fetching && <Skeleton h={480} />}
            {users?.length === 0 && <Text c="dimmed">No users are stored.</Text>}
            {users && users.length > 0 && (
                <Table.ScrollContainer minWidth={300} type="native">
                    <Table aria-label="Stored users" highlightOnHover>
                        <Table.Thead>
                            <Table.Tr>
                                <Table.Th scope="col">Id</Table.Th>
                                <Table.Th scope="col">Key</Table.Th>
                                <Table.Th scope="col">Stored</Table.Th>
                            </Table.Tr>
                        </Table.Thead>
                        <Table.Tbody>
                            {users.map(({ id, key, createdAt }) => (
                                <Table.Tr key={id}>
                                    <Table.Td>
                                        <UserLink id={id} />
                                    </Table.Td>
                                    <Table.Td className="break">{key ?? "–"}</Table.Td>
                                    <Table.Td>
                                        <Time at={createdAt} />
                                    </Table.Td>
                                </Table.Tr>
                            ))}
                        </Table.Tbody>
                    </Table>
                </Table.ScrollContainer>
            )}
            <PageButtons pages={pages} pageInfo={data?.users?.pageInfo} />
        </Section>
    );
}
