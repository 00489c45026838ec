import { Group, Stack, Table, Text, Title } from "@mantine/core";

import { Num } from "../../../components/values";
import type { RowOutcome } from "../../../graphql/operations";
import type { ImportRecord } from "./import-detail";
import { ResultButton } from "./result-button";
import { countOf, FINISHED, OUTCOMES, REJECTED } from "./texts";

interface Props {
    record: ImportRecord;
    /** Whether a worker still makes the file with the outcome of each row. */
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
                                <Table.Td>{nameOf(outcome)}</Table.Td>
                                <Table.Td visibleFrom="sm" c="dimmed">
                                    {meaningOf(outcome)}
                                </Table.Td>
                                <Table.Td className="number">
                                    <Num value={count} />
                                </Table.Td>
                                {resultUrl && (
                                    <Table.Td>
                                        <ResultButton
                                            id={id}
                                            outcomes={[outcome]}
                                            label={`Download the rows: ${nameOf(outcome)}`}
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
                                <Num value={rows} />
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
                            {countOf(record, ...REJECTED) > 0 && (
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
                                ? "A worker makes the file with the outcome of each row."
                                : "The file with the outcome of each row is not available: it was deleted, or it is not made yet."}
                        </Text>
                    )}
                </Group>
            )}
        </Stack>
    );
}

// A newer server may have other outcomes.
function nameOf(outcome: RowOutcome): string {
    return OUTCOMES[outcome]?.[0] ?? outcome;
}

function meaningOf(outcome: RowOutcome): string {
    return OUTCOMES[outcome]?.[1] ?? "";
}
