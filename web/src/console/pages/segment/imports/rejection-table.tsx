import { Code, Stack, Table, Text, Title } from "@mantine/core";

import { FormattedNumber } from "../../../components/values";
import { formatNumber } from "../../../format";
import type { ImportRecord } from "./import-detail";
import { countRows, REJECTED } from "./import-texts";

/** The first rejected rows, with the reason of each. */
export function RejectionTable({ record }: { record: ImportRecord }) {
  const { rejections } = record;
  if (rejections.length === 0) {
    return null;
  }
  const all = countRows(record, ...REJECTED);
  return (
    <Stack gap="xs" component="section" aria-labelledby="rejections-title">
      <Title order={3} size="h4" id="rejections-title">
        Rejected rows
      </Title>
      {all > rejections.length && (
        <Text size="sm" c="dimmed">
          The first {rejections.length} of {formatNumber(all)}.
        </Text>
      )}

      <Table aria-labelledby="rejections-title">
        <Table.Thead>
          <Table.Tr>
            <Table.Th className="number">Line</Table.Th>
            <Table.Th>Value</Table.Th>
            <Table.Th>Reason</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rejections.map(({ line, value, message }) => (
            <Table.Tr key={line}>
              <Table.Td className="number">
                <FormattedNumber value={line} />
              </Table.Td>
              <Table.Td className="break" miw={{ base: 96, sm: 200 }}>
                {value ? <Code>{value}</Code> : "–"}
              </Table.Td>
              <Table.Td>{message}</Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Stack>
  );
}
