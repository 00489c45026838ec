import { Alert, Badge, Button, Loader, Table, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { Info, Plus } from "lucide-react";

import { requiresKey } from "../../app/server";
import { useSession } from "../../app/session";
import { labelOf, ROLE_LABELS } from "../../components/enum-labels";
import { ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { Page, ShowAsGraphQL } from "../../components/page";
import { PageButtons, usePagination } from "../../components/pagination";
import { Time } from "../../components/values";
import { ApiKeysDocument, type ApiKeysQuery } from "../../graphql/operations";
import { CreateKeyDialog } from "./create-key-dialog";
import { RevokeButton } from "./revoke-button";

type ApiKey = NonNullable<ApiKeysQuery["apiKeys"]>["nodes"][number];

export function KeysPage() {
  const { hasRole } = useSession();
  if (!hasRole("ADMIN")) {
    return (
      <Page title="API keys">
        <Text>Only an administrator can see and create API keys.</Text>
      </Page>
    );
  }
  return <Keys />;
}

function Keys() {
  const pagination = usePagination();
  const variables = { first: 50, after: pagination.after };
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: ApiKeysDocument,
    variables,
  });
  const [opened, { open, close }] = useDisclosure();
  const keys = data?.apiKeys?.nodes ?? [];
  return (
    <Page
      title="API keys"
      description="Each service and each person has a key of their own. History and the audit log show its name."
      actions={
        <>
          <ShowAsGraphQL document={ApiKeysDocument} variables={variables} />
          <Button leftSection={<Plus size={16} aria-hidden />} onClick={open}>
            Create API key
          </Button>
        </>
      }
    >
      {!requiresKey && (
        <Alert icon={<Info aria-hidden />} color="blue">
          This server accepts requests without an API key. To require keys, an operator sets
          SEGMENTQL_AUTH=required.
        </Alert>
      )}
      <ErrorAlert error={error} onRetry={refresh} />
      {!data && fetching && <Loader aria-label="Loading the API keys" />}
      {data?.apiKeys && keys.length === 0 && <Text c="dimmed">There are no API keys.</Text>}
      {keys.length > 0 && <KeysTable keys={keys} ownId={data?.viewer?.keyId ?? null} />}
      <PageButtons pagination={pagination} pageInfo={data?.apiKeys?.pageInfo} />
      {opened && <CreateKeyDialog onClose={close} />}
    </Page>
  );
}

function KeysTable({ keys, ownId }: { keys: readonly ApiKey[]; ownId: string | null }) {
  return (
    <Table.ScrollContainer minWidth={720}>
      <Table verticalSpacing="sm" aria-label="API keys">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Name</Table.Th>
            <Table.Th>Role</Table.Th>
            <Table.Th>Created</Table.Th>
            <Table.Th>Created by</Table.Th>
            <Table.Th>Last used</Table.Th>
            <Table.Th>Status</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {keys.map((key) => (
            <Table.Tr key={key.id}>
              <Table.Td className="break">
                {key.name}
                {key.id === ownId && " (yours)"}
              </Table.Td>
              <Table.Td>{labelOf(ROLE_LABELS, key.role)}</Table.Td>
              <Table.Td>
                <Time at={key.createdAt} relative />
              </Table.Td>
              <Table.Td className="break">{key.createdBy ?? "–"}</Table.Td>
              <Table.Td>
                {key.lastUsedAt ? <Time at={key.lastUsedAt} relative /> : "Never"}
              </Table.Td>
              <Table.Td>
                {key.revokedAt ? (
                  <>
                    <Badge color="gray" variant="light" tt="none" mr="xs">
                      Revoked
                    </Badge>
                    <Time at={key.revokedAt} relative />
                  </>
                ) : (
                  <RevokeButton id={key.id} name={key.name} isOwn={key.id === ownId} />
                )}
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}
