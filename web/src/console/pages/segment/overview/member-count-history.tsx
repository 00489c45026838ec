import { Button, Group, ScrollArea, SegmentedControl, Skeleton, Table, Text } from "@mantine/core";
import { useDidUpdate, useDisclosure } from "@mantine/hooks";
import { lazy, Suspense, useCallback, useMemo, useState } from "react";

import { ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { ShowAsGraphQL } from "../../../components/page";
import { usePolling } from "../../../components/polling";
import { Section } from "../../../components/section";
import { FormattedNumber, Time } from "../../../components/values";
import { formatNumber } from "../../../format";
import {
  SegmentMemberCountDocument,
  SegmentMemberCountHistoryDocument,
} from "../../../graphql/operations";
import type { MemberCountPoint } from "./member-count-chart";
import { describeMemberCounts } from "./member-count-summary";
import { availableRanges, defaultRange, type RangeValue, rangeTimes } from "./ranges";

const MemberCountChart = lazy(() => import("./member-count-chart"));

const POINTS = 121;
const CHART_HEIGHT = 280;

interface Props {
  slug: string;
  createdAt: string;
  /** Whether the number changes now, so that it is read again and again. */
  changing: boolean;
}

/** The number of members now and in the past. */
export function MemberCountHistory({ slug, createdAt, changing }: Props) {
  const [now, setNow] = useState(Date.now);
  const [range, setRange] = useState<RangeValue>(() => defaultRange(createdAt, now));
  const ranges = availableRanges(createdAt, now);
  const variables = { slug, points: POINTS, ...rangeTimes(range, createdAt, now) };
  const [current, refreshCount] = useQueryKeepingData({
    query: SegmentMemberCountDocument,
    variables: { slug },
  });
  const [history, refreshHistory] = useQueryKeepingData({
    query: SegmentMemberCountHistoryDocument,
    variables,
    // Points of the past stay as they are. A later `now` requests others.
    requestPolicy: "cache-first",
  });
  const refreshAll = useCallback(() => setNow(Date.now()), []);
  usePolling(refreshCount, changing, 3000);
  usePolling(refreshAll, changing, 15_000);
  // The last polls were before the last changes.
  useDidUpdate(() => {
    if (!changing) {
      refreshCount({ requestPolicy: "network-only" });
      refreshAll();
    }
  }, [changing]);
  const [tableShown, table] = useDisclosure();

  const count = current.data?.segment?.memberCount;
  const past = history.data?.segment?.memberCounts;
  const points = useMemo<MemberCountPoint[]>(() => {
    const known = past?.map((point) => ({ at: Date.parse(point.at), count: point.count })) ?? [];
    return count == null || known.length === 0 ? known : [...known, { at: now, count }];
  }, [past, count, now]);

  return (
    <Section
      title="Members"
      h="100%"
      actions={
        ranges.length > 1 && (
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
        )
      }
    >
      {current.data ? (
        <Text fz={32} fw={650} lh={1.3}>
          <FormattedNumber value={count} />
        </Text>
      ) : (
        <Skeleton h={42} w={120} />
      )}
      <ErrorAlert error={current.error} onRetry={refreshCount} />
      {!current.error && <ErrorAlert error={history.error} onRetry={refreshHistory} />}
      {points.length > 0 ? (
        <>
          <Suspense fallback={<Skeleton h={CHART_HEIGHT} />}>
            {/* After a change of the width, the hidden tooltip is at its old place. */}
            <div aria-hidden style={{ overflow: "clip" }}>
              <MemberCountChart points={points} height={CHART_HEIGHT} />
            </div>
          </Suspense>
          <Text size="sm" c="dimmed">
            {describeMemberCounts(points)}
          </Text>
        </>
      ) : (
        !history.error && <Skeleton h={CHART_HEIGHT} />
      )}
      <Group gap="xs">
        <Button variant="subtle" size="xs" aria-expanded={tableShown} onClick={table.toggle}>
          {tableShown ? "Hide the table" : "Show as table"}
        </Button>
        <ShowAsGraphQL document={SegmentMemberCountHistoryDocument} variables={variables} />
      </Group>
      {tableShown && <MemberCountTable points={points} />}
    </Section>
  );
}

function MemberCountTable({ points }: { points: readonly MemberCountPoint[] }) {
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
