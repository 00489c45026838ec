import { Group, Stack, Table, Text, Title } from "@mantine/core";

import { outcomeTexts } from "../../../components/outcomes";
import { FormattedNumber } from "../../../components/values";
import type { ImportRecord } from "./import-detail";
import { countRows, FINISHED, REJECTED } from "./import-texts";
import { ResultButton } from "./result-button";

interface Props {
  record: ImportRecord;
  /** Whether the file with the outcome of each row is still being created. */
  awaitsResult: boolean;
}

/** The number of rows of each outcome, and the files with these rows. */
export function OutcomeTable({ record, awaitsResult }: Props) {
  const { id, status, rows, counts, resultUrl } = record;
  if (rows === null) {
    return null;
  }
  if (rows === 0) {
    return <Text>The list is empty.</Text>;
  }
  const isForecast = status === "VALIDATED" || status === "HELD";
  const isFinished = FINISHED.includes(status);
  return (
    <Stack gap="xs" component="section" aria-labelledby="outcomes-title">
      <Title order={3} size="h4" id="outcomes-title">
        {isForecast ? "Forecast" : "Outcome of each row"}
      </Title>
      <Table.ScrollContainer minWidth={320}>
        <Table aria-labelledby="outcomes-title">
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Outcome</Table.Th>
              <Table.Th visibleFrom="sm">Meaning</Table.Th>
              <Table.Th className="number">Rows</Table.Th>
              {resultUrl && <Table.Th>File</Table.Th>}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {counts.map(({ outcome, count }) => (
              <Table.Tr key={outcome}>
                <Table.Td>{outcomeTexts(outcome).label}</Table.Td>
                <Table.Td visibleFrom="sm" c="dimmed">
                  {outcomeTexts(outcome).meaning}
                </Table.Td>
                <Table.Td className="number">
                  <FormattedNumber value={count} />
                </Table.Td>
                {resultUrl && (
                  <Table.Td>
                    <ResultButton
                      id={id}
                      outcomes={[outcome]}
                      label={`Download the rows: ${outcomeTexts(outcome).label}`}
                    />
                  </Table.Td>
                )}
              </Table.Tr>
            ))}
          </Table.Tbody>
          <Table.Tfoot>
            <Table.Tr>
              <Table.Th scope="row">All rows</Table.Th>
              <Table.Td visibleFrom="sm" />
              <Table.Td className="number" fw={700}>
                <FormattedNumber value={rows} />
              </Table.Td>
              {resultUrl && <Table.Td />}
            </Table.Tr>
          </Table.Tfoot>
        </Table>
      </Table.ScrollContainer>
      {isFinished && (
        <Group gap="xs">
          {resultUrl && (
            <>
              {countRows(record, ...REJECTED) > 0 && (
                <ResultButton id={id} outcomes={[...REJECTED]}>
                  Download the rejected rows
                </ResultButton>
              )}
              <ResultButton id={id} href={resultUrl}>
                Download all rows
              </ResultButton>
            </>
          )}
          {!resultUrl && (
            <Text size="sm" c="dimmed" role="status">
              {awaitsResult
                ? "The file with the outcome of each row is being created."
                : "The file with the outcome of each row is not available: it was deleted, or it is not created yet."}
            </Text>
          )}
        </Group>
      )}
    </Stack>
  );
}
