import { Anchor, Badge, Group, Skeleton, Table, Text } from "@mantine/core";
import type { MouseEvent } from "react";
import { Link, useLocation } from "wouter";

import { segmentPath } from "../../components/links";
import { FormattedNumber, StatusBadge, Time } from "../../components/values";
import { formatPercent } from "../../format";
import type { SegmentMemberCountsQuery, SegmentsQuery } from "../../graphql/operations";

type Segment = NonNullable<SegmentsQuery["segments"]>["nodes"][number];
type MemberCount = NonNullable<SegmentMemberCountsQuery["segments"]>["nodes"][number];

interface Props {
  segments: readonly Segment[];
  /** The member counts that are known, in any order. */
  counts: readonly MemberCount[] | undefined;
  countsFailed: boolean;
}

export function SegmentsTable({ segments, counts = [], countsFailed }: Props) {
  const countOf = new Map(counts.map(({ id, memberCount }) => [id, memberCount]));
  return (
    <Table
      highlightOnHover
      highlightOnHoverColor="var(--mantine-color-default-hover)"
      verticalSpacing="sm"
      aria-label="Segments"
    >
      <Table.Thead>
        <Table.Tr>
          <Table.Th scope="col">Segment</Table.Th>
          <Table.Th scope="col" className="number" w={{ sm: 140 }}>
            Members
          </Table.Th>
          <Table.Th scope="col" w={{ base: 110, sm: 220 }}>
            Rollout
          </Table.Th>
          <Table.Th scope="col" visibleFrom="sm" w={220}>
            Updated
          </Table.Th>
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {segments.map((segment) => (
          <Row
            key={segment.id}
            segment={segment}
            memberCount={countOf.get(segment.id) ?? (countsFailed ? null : undefined)}
          />
        ))}
      </Table.Tbody>
    </Table>
  );
}

interface RowProps {
  segment: Segment;
  /** Undefined while the number of members is loading, null if it is not known. */
  memberCount: number | null | undefined;
}

function Row({ segment: { slug, name, updatedAt, deletedAt, rollout }, memberCount }: RowProps) {
  const [, navigate] = useLocation();
  // The link is for the keyboard and for new tabs. A click on the rest of the row opens the segment, too.
  const openSegment = (event: MouseEvent<HTMLElement>) => {
    if (!(event.target as HTMLElement).closest("a") && !getSelection()?.toString()) {
      navigate(segmentPath(slug));
    }
  };
  return (
    <Table.Tr
      onClick={deletedAt ? undefined : openSegment}
      style={deletedAt ? undefined : { cursor: "pointer" }}
    >
      <Table.Td>
        {deletedAt ? (
          <Group gap="xs">
            <Text span inherit fw={600} c="dimmed" lineClamp={2} title={slug} className="break">
              {slug}
            </Text>
            <Badge color="gray" variant="light" tt="none" autoContrast>
              Deleted
            </Badge>
          </Group>
        ) : (
          <Anchor
            component={Link}
            href={segmentPath(slug)}
            inherit
            fw={600}
            lineClamp={2}
            title={slug}
            className="break"
          >
            {slug}
          </Anchor>
        )}
        {name && (
          <Text size="sm" c="dimmed" lineClamp={2} className="break">
            {name}
          </Text>
        )}
      </Table.Td>
      <Table.Td className="number">
        {memberCount === undefined ? (
          <Skeleton h={14} w={48} ml="auto" aria-label="Loading" />
        ) : (
          <FormattedNumber value={memberCount} />
        )}
      </Table.Td>
      <Table.Td>
        {rollout ? (
          <Group gap="xs">
            <span className="nowrap">{formatPercent(rollout.percent)}</span>
            <StatusBadge status={rollout.status} />
          </Group>
        ) : (
          <Text span inherit c="dimmed">
            None
          </Text>
        )}
      </Table.Td>
      <Table.Td visibleFrom="sm">
        {deletedAt ? (
          <Text span inherit c="dimmed">
            Deleted <Time at={deletedAt} relative />
          </Text>
        ) : (
          <Time at={updatedAt} relative />
        )}
      </Table.Td>
    </Table.Tr>
  );
}
