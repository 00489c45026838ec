import {
    Button,
    Group,
    Paper,
    ScrollArea,
    SegmentedControl,
    Skeleton,
    Stack,
    Table,
    Text,
    Title,
} from "@mantine/core";
import { useDidUpdate, useDisclosure } from "@mantine/hooks";
import { lazy, Suspense, useCallback, useMemo, useState } from "react";
import { useQuery } from "urql";

import { ErrorAlert } from "../../../components/errors";
import { ShowAsGraphQL } from "../../../components/page";
import { usePolling } from "../../../components/polling";
import { Num, Time } from "../../../components/values";
import { formatNumber } from "../../../format";
import { SegmentSizeDocument, SegmentSizeHistoryDocument } from "../../../graphql/operations";
import { availableRanges, defaultRange, type RangeValue, rangeTimes } from "./ranges";
import type { SizePoint } from "./size-chart";
import { describeSize } from "./size-summary";

const SizeChart = lazy(() => import("./size-chart"));

const POINTS = 121;
const CHART_HEIGHT = 280;

interface Props {
    slug: string;
    createdAt: string;
    /** Whether the size changes now, so that it is read again and again. */
    changing: boolean;
}

/** The number of members now and in the past. */
export function SizeHistory({ slug, createdAt, changing }: Props) {
    const [now, setNow] = useState(Date.now);
    const [range, setRange] = useState<RangeValue>(() => defaultRange(createdAt, now));
    const ranges = availableRanges(createdAt, now);
    const variables = { slug, points: POINTS, ...rangeTimes(range, createdAt, now) };
    const [size, refreshSize] = useQuery({ query: SegmentSizeDocument, variables: { slug } });
    const [history, refreshHistory] = useQuery({
        query: SegmentSizeHistoryDocument,
        variables,
        // Points of the past stay as they are. A later `now` requests others.
        requestPolicy: "cache-first",
    });
    const refreshAll = useCallback(() => setNow(Date.now()), []);
    usePolling(refreshSize, changing, 3000);
    usePolling(refreshAll, changing, 15_000);
    // The last polls were before the last changes.
    useDidUpdate(() => {
        if (!changing) {
            refreshSize({ requestPolicy: "network-only" });
            refreshAll();
        }
    }, [changing]);
    const [tableShown, table] = useDisclosure();

    const current = size.data?.segment?.memberCount;
    const past = history.data?.segment?.memberCounts;
    const points = useMemo<SizePoint[]>(() => {
        const known = past?.map(({ at, count }) => ({ at: Date.parse(at), count })) ?? [];
        return current == null || known.length === 0
            ? known
            : [...known, { at: now, count: current }];
    }, [past, current, now]);

    return (
        <Paper withBorder p="md" h="100%">
            <Stack>
                <Group justify="space-between" align="flex-start">
                    <div>
                        <Title order={2} size="h5">
                            Members
                        </Title>
                        {size.data ? (
                            <Text fz={32} fw={650} lh={1.3}>
                                <Num value={current} />
                            </Text>
                        ) : (
                            <Skeleton h={32} w={120} mt={8} />
                        )}
                    </div>
                    {ranges.length > 1 && (
                        <SegmentedControl
                            size="xs"
                            aria-label="Time range"
                            value={range}
                            onChange={(value) => {
                                setNow(Date.now());
                                setRange(value);
                            }}
                            data={ranges}
                        />
                    )}
                </Group>
                <ErrorAlert error={size.error} onRetry={refreshSize} />
                {!size.error && <ErrorAlert error={history.error} onRetry={refreshHistory} />}
                {points.length > 0 ? (
                    <>
                        <Suspense fallback={<Skeleton h={CHART_HEIGHT} />}>
                            {/* After a change of the width, the hidden tooltip is at its old place. */}
                            <div aria-hidden style={{ overflow: "clip" }}>
                                <SizeChart points={points} height={CHART_HEIGHT} />
                            </div>
                        </Suspense>
                        <Text size="sm" c="dimmed">
                            {describeSize(points)}
                        </Text>
                    </>
                ) : (
                    !history.error && <Skeleton h={CHART_HEIGHT} />
                )}
                <Group gap="xs">
                    <Button
                        variant="subtle"
                        size="xs"
                        aria-expanded={tableShown}
                        onClick={table.toggle}
                    >
                        {tableShown ? "Hide the table" : "Show as table"}
                    </Button>
                    <ShowAsGraphQL document={SegmentSizeHistoryDocument} variables={variables} />
                </Group>
                {tableShown && <SizeTable points={points} />}
            </Stack>
        </Paper>
    );
}

function SizeTable({ points }: { points: readonly SizePoint[] }) {
    return (
        <ScrollArea.Autosize
            mah={320}
            viewportProps={{ tabIndex: 0, role: "region", "aria-label": "Members over time" }}
        >
            <Table stickyHeader aria-label="Members over time">
                <Table.Thead>
                    <Table.Tr>
                        <Table.Th scope="col">Time</Table.Th>
                        <Table.Th scope="col" className="number">
                            Members
                        </Table.Th>
                    </Table.Tr>
                </Table.Thead>
                <Table.Tbody>
                    {points.toReversed().map(({ at, count }) => (
                        <Table.Tr key={at}>
                            <Table.Td>
                                <Time at={new Date(at).toISOString()} />
                            </Table.Td>
                            <Table.Td className="number">{formatNumber(count)}</Table.Td>
                        </Table.Tr>
                    ))}
                </Table.Tbody>
            </Table>
        </ScrollArea.Autosize>
    );
}
