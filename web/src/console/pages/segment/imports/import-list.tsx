import { Anchor, Button, Group, Skeleton, Stack, Table, Text } from "@mantine/core";
import { FileUp } from "lucide-react";
import { Link } from "wouter";

import { useSession } from "../../../app/session";
import { IMPORT_MODE_LABELS, labelOf } from "../../../components/enum-labels";
import { ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { ShowAsGraphQL } from "../../../components/page";
import { PageButtons, usePagination } from "../../../components/pagination";
import { usePolling } from "../../../components/polling";
import { FormattedNumber, StatusBadge, Time } from "../../../components/values";
import { formatPercent } from "../../../format";
import { type ImportRowFragment, SegmentImportsDocument } from "../../../graphql/operations";
import { ACTIVE, countRows, REJECTED } from "./import-texts";
import { importPath } from "./paths";

const PAGE_SIZE = 25;

export function ImportList({ slug }: { slug: string }) {
  const pagination = usePagination(slug);
  const variables = { slug, first: PAGE_SIZE, after: pagination.after };
  const [{ data, error }, refresh] = useQueryKeepingData({
    query: SegmentImportsDocument,
    variables,
  });
  const { hasRole } = useSession();
  const imports = data?.imports?.nodes;
  usePolling(refresh, imports?.some(({ status }) => ACTIVE.includes(status)) ?? false, 2000);
  return (
    <Stack>
      <Group justify="space-between">
        <Text c="dimmed" size="sm">
          An import changes the members by a list of users.
        </Text>
        <Group gap="xs">
          <ShowAsGraphQL document={SegmentImportsDocument} variables={variables} />
          {hasRole("EDITOR") && (
            <Button
              component={Link}
              href={importPath(slug, "new")}
              leftSection={<FileUp size={16} aria-hidden />}
            >
              Import a list
            </Button>
          )}
        </Group>
      </Group>
      <ErrorAlert error={error} onRetry={refresh} />
      {!imports && !error && <Skeleton height={160} aria-label="Loading the imports" />}
      {imports?.length === 0 && <Text>No list was imported into this segment.</Text>}
      {imports && imports.length > 0 && (
        <Table.ScrollContainer minWidth={900}>
          <Table aria-label="Imports, newest first">
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Import</Table.Th>
                <Table.Th>Status</Table.Th>
                <Table.Th>Mode</Table.Th>
                <Table.Th className="number">Rows</Table.Th>
                <Table.Th className="number">Joins</Table.Th>
                <Table.Th className="number">Leaves</Table.Th>
                <Table.Th className="number">Rejected</Table.Th>
                <Table.Th>Created</Table.Th>
                <Table.Th>Created by</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {imports.map((record) => (
                <ImportListRow key={record.id} slug={slug} record={record} />
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <PageButtons pagination={pagination} pageInfo={data?.imports?.pageInfo} />
    </Stack>
  );
}

function ImportListRow({ slug, record }: { slug: string; record: ImportRowFragment }) {
  const isRead = record.rows !== null;
  return (
    <Table.Tr>
      <Table.Td>
        <Anchor component={Link} href={importPath(slug, record.id)} inherit className="nowrap">
          {record.id}
        </Anchor>
      </Table.Td>
      <Table.Td miw={150}>
        <Group gap="xs" wrap="nowrap">
          <StatusBadge status={record.status} />
          {record.status === "APPLYING" && (
            <span className="number">{formatPercent(Math.floor(record.progress * 100))}</span>
          )}
        </Group>
      </Table.Td>
      <Table.Td>{labelOf(IMPORT_MODE_LABELS, record.mode)}</Table.Td>
      <Table.Td className="number">
        <FormattedNumber value={record.rows} />
      </Table.Td>
      <Table.Td className="number">
        <FormattedNumber value={isRead ? countRows(record, "JOINED") : null} />
      </Table.Td>
      <Table.Td className="number">
        <FormattedNumber value={record.removals} />
      </Table.Td>
      <Table.Td className="number">
        <FormattedNumber value={isRead ? countRows(record, ...REJECTED) : null} />
      </Table.Td>
      <Table.Td>
        <Time at={record.createdAt} />
      </Table.Td>
      <Table.Td className="break">{record.actor ?? "–"}</Table.Td>
    </Table.Tr>
  );
}
