import { Button, Skeleton, Table, Text } from "@mantine/core";
import { UserPlus } from "lucide-react";
import { useState } from "react";

import { useSession } from "../../app/session";
import { ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { UserLink } from "../../components/links";
import { Page, ShowAsGraphQL } from "../../components/page";
import { PageButtons, usePagination } from "../../components/pagination";
import { Section } from "../../components/section";
import { Time } from "../../components/values";
import { UserListDocument } from "../../graphql/operations";
import { CreateUser } from "./create-user";
import { UserSearch } from "./user-search";

export function UsersPage() {
  const { hasRole } = useSession();
  const [creating, setCreating] = useState(false);
  return (
    <Page
      title="Users"
      description="Find a user by id or key to see the user's segments and history."
      actions={
        hasRole("EDITOR") && (
          <Button
            leftSection={<UserPlus size={16} aria-hidden />}
            onClick={() => setCreating(true)}
          >
            Create user
          </Button>
        )
      }
    >
      <UserSearch />
      <UserList />
      <CreateUser opened={creating} onClose={() => setCreating(false)} />
    </Page>
  );
}

function UserList() {
  const pagination = usePagination();
  const variables = { after: pagination.after };
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: UserListDocument,
    variables,
  });
  const users = data?.users?.nodes;
  return (
    <Section
      title="All users"
      actions={<ShowAsGraphQL document={UserListDocument} variables={variables} />}
    >
      <ErrorAlert error={error} onRetry={refresh} />
      {!users && fetching && <Skeleton h={480} />}
      {users?.length === 0 && <Text c="dimmed">There are no users yet.</Text>}
      {users && users.length > 0 && (
        <Table.ScrollContainer minWidth={300} type="native">
          <Table aria-label="All users" highlightOnHover>
            <Table.Thead>
              <Table.Tr>
                <Table.Th scope="col">Id</Table.Th>
                <Table.Th scope="col">Key</Table.Th>
                <Table.Th scope="col">Created</Table.Th>
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
      <PageButtons pagination={pagination} pageInfo={data?.users?.pageInfo} />
    </Section>
  );
}
