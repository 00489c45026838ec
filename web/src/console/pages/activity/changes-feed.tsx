import { Alert, Badge, Button, Group, SegmentedControl, Stack, Text } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { Pause, Play } from "lucide-react";
import { useMemo, useState } from "react";

import { HistoryTable } from "../../components/history";
import { ShowAsGraphQL } from "../../components/page";
import { SEARCH_DELAY_MILLISECONDS } from "../../components/search-delay";
import { SlugInput } from "../../components/segment-input";
import { ChangesDocument, type FeedFilter, type Operation } from "../../graphql/operations";
import { MAX_CHANGES } from "./feed-state";
import { useChanges } from "./use-changes";

type Shown = "ALL" | Operation;

/** Joins and leaves of all segments as they happen. */
export function ChangesFeed() {
  const [slug, setSlug] = useState("");
  const [shown, setShown] = useState<Shown>("ALL");
  const [paused, setPaused] = useState(false);
  const [enteredSlug] = useDebouncedValue(slug.trim(), SEARCH_DELAY_MILLISECONDS);
  const filter = useMemo<FeedFilter>(
    () => ({
      slugs: enteredSlug ? [enteredSlug] : null,
      operations: shown === "ALL" ? null : [shown],
    }),
    [enteredSlug, shown],
  );
  const [{ changes, status, error }, retry] = useChanges(filter, paused);
  const entries = useMemo(() => changes.map((change) => change.entry), [changes]);
  return (
    <Stack>
      <Group align="flex-end">
        <SlugInput
          label="Segment"
          placeholder="All segments"
          clearable
          value={slug}
          onChange={setSlug}
        />
        <SegmentedControl
          aria-label="Operations"
          value={shown}
          onChange={(value) => setShown(value as Shown)}
          data={[
            { value: "ALL", label: "All" },
            { value: "JOINED", label: "Joins" },
            { value: "LEFT", label: "Leaves" },
          ]}
        />
        <Button
          variant="default"
          leftSection={paused ? <Play size={16} aria-hidden /> : <Pause size={16} aria-hidden />}
          onClick={() => setPaused(!paused)}
        >
          {paused ? "Resume" : "Pause"}
        </Button>
        <div role="status">
          <FeedStatus status={paused ? "paused" : status} />
        </div>
      </Group>
      {error && !paused && (
        <Alert color="orange" role="alert">
          <Group justify="space-between">
            <Text size="sm" className="break">
              {error}
              {status === "interrupted" && " The page connects again by itself."}
            </Text>
            {status === "stopped" && (
              <Button size="xs" variant="default" onClick={retry}>
                Try again
              </Button>
            )}
          </Group>
        </Alert>
      )}
      {changes.length === 0 ? (
        <Text c="dimmed">Joins and leaves appear here when they are recorded.</Text>
      ) : (
        <>
          <HistoryTable label="Joins and leaves, newest first" entries={entries} />
          <Text size="sm" c="dimmed">
            The page shows the last {MAX_CHANGES} joins and leaves since it was opened.
          </Text>
        </>
      )}
      <div>
        <ShowAsGraphQL document={ChangesDocument} variables={{ filter }} />
      </div>
    </Stack>
  );
}

const STATUSES = {
  connecting: { label: "Connecting", color: "gray" },
  live: { label: "Live", color: "teal" },
  interrupted: { label: "Interrupted", color: "orange" },
  stopped: { label: "Stopped", color: "red" },
  paused: { label: "Paused", color: "yellow" },
} as const;

function FeedStatus({ status }: { status: keyof typeof STATUSES }) {
  const { label, color } = STATUSES[status];
  return (
    <Badge color={color} variant="light" size="lg" tt="none">
      {label}
    </Badge>
  );
}
