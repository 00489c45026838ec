import { formatNumber, formatTime } from "../../../format";
import type { MemberCountPoint } from "./member-count-chart";

/** Return what the chart shows, in sentences. */
export function describeMemberCounts(points: readonly MemberCountPoint[]): string {
  const first = points[0];
  const last = points.at(-1);
  if (!first || !last) {
    return "";
  }
  const counts = points.map(({ count }) => count);
  const lowest = Math.min(...counts);
  const highest = Math.max(...counts);
  const since = formatTime(new Date(first.at).toISOString());
  if (lowest === highest) {
    return `The number of members is the same at all times shown since ${since}.`;
  }
  return (
    `${describeDifference(last.count - first.count)} ${since}. ` +
    `The lowest number is ${formatNumber(lowest)}, the highest is ${formatNumber(highest)}.`
  );
}

function describeDifference(difference: number): string {
  if (difference === 0) {
    return "As many members as at";
  }
  const members = `${formatNumber(Math.abs(difference))} ${difference > 0 ? "more" : "fewer"}`;
  return `${members} ${Math.abs(difference) === 1 ? "member" : "members"} than at`;
}
