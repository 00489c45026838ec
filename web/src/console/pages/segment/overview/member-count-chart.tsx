import "@mantine/charts/styles.css";

import { AreaChart, ChartTooltip } from "@mantine/charts";

import { formatCompact, formatNumber, formatTime } from "../../../format";
import { tickFormat, ticks } from "./ranges";

export interface MemberCountPoint {
  /** Milliseconds since 1970. */
  at: number;
  count: number;
}

const SERIES = [{ name: "count", label: "Members", color: "teal.6" }];

/** The chart of the number of members. It is loaded when it is shown, because the chart library is large. */
export default function MemberCountChart({
  points,
  height,
}: {
  points: MemberCountPoint[];
  height: number;
}) {
  const from = points[0]?.at ?? 0;
  const to = points.at(-1)?.at ?? 0;
  const format = tickFormat(to - from);
  return (
    <AreaChart
      h={height}
      data={points}
      dataKey="at"
      series={SERIES}
      curveType="stepAfter"
      withDots={false}
      fillOpacity={0.15}
      tickLine="none"
      gridAxis="x"
      // The summary and the table have the same numbers for the keyboard and for screen readers.
      accessibilityLayer={false}
      xAxisProps={{
        type: "number",
        domain: [from, to],
        ticks: ticks(from, to, 5),
        tickFormatter: (at: number) => format.format(at),
        interval: "preserveStartEnd",
      }}
      yAxisProps={{
        allowDecimals: false,
        width: 52,
        tickFormatter: (count: number) => formatCompact(count),
      }}
      tooltipProps={{
        content: ({ label, payload }) => (
          <ChartTooltip
            label={typeof label === "number" ? formatTime(new Date(label).toISOString()) : ""}
            payload={[...(payload ?? [])]}
            series={SERIES}
            valueFormatter={formatNumber}
          />
        ),
      }}
    />
  );
}
