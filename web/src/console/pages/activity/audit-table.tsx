import { Code, Stack, Table, Text } from "@mantine/core";

import { SegmentLink } from "../../components/links";
import { Time } from "../../components/values";
import type { AuditLogQuery } from "../../graphql/operations";
import { compareStates, type FieldChange, slugOf } from "./state-changes";

type AuditEntry = NonNullable<AuditLogQuery["auditLog"]>["nodes"][number];

export function AuditTable({ entries }: { entries: readonly AuditEntry[] }) {
  return (
    <Table.ScrollContainer minWidth={960}>
      <Table verticalSpacing="sm" aria-label="Audit log">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Time</Table.Th>
            <Table.Th miw={120}>By</Table.Th>
            <Table.Th>Action</Table.Th>
            <Table.Th miw={220}>Target</Table.Th>
            <Table.Th>Changed fields</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {entries.map((entry) => (
            <Table.Tr key={entry.id} style={{ verticalAlign: "top" }}>
              <Table.Td>
                <Time at={entry.at} />
              </Table.Td>
              <Table.Td className="break">{entry.actor ?? "–"}</Table.Td>
              <Table.Td className="nowrap">{describeAction(entry.action)}</Table.Td>
              <Table.Td>
                <Target entry={entry} />
              </Table.Td>
              <Table.Td>
                <Changes changes={compareStates(entry.before, entry.after)} />
                {entry.requestId && (
                  <Text size="xs" c="dimmed" className="break">
                    Request {entry.requestId}
                  </Text>
                )}
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

function Target({ entry }: { entry: AuditEntry }) {
  const slug = slugOf(entry.after) ?? slugOf(entry.before);
  return (
    <Stack gap={0}>
      {slug && entry.action === "segment.deleted" ? slug : slug && <SegmentLink slug={slug} />}
      <Text size="xs" c="dimmed" className="break">
        {entry.target}
      </Text>
    </Stack>
  );
}

function Changes({ changes }: { changes: readonly FieldChange[] }) {
  return changes.map(({ field, before, after }) => (
    <Text key={field} size="sm" className="break">
      {field}: {before !== null && <Code>{before}</Code>}
      {before !== null && " → "}
      <Code>{after ?? "none"}</Code>
    </Text>
  ));
}

/** Return an action such as `rollout.set` as text: "rollout set". */
function describeAction(action: string): string {
  return action.replace(".", " ").replaceAll("_", " ");
}
