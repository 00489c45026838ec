import { Group, Stack, Tabs, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";
import { useLocation } from "wouter";

import { useSession } from "../../app/session";
import { DateRangeInputs } from "../../components/date-range";
import { Page } from "../../components/page";
import { SEARCH_DELAY_MILLISECONDS } from "../../components/search-delay";
import { SlugInput } from "../../components/segment-input";
import { AuditLog } from "./audit-log";
import { ChangesFeed } from "./changes-feed";

/** The change feed, and the audit log for those who may read it. */
export function ActivityPage({ tab }: { tab: string | undefined }) {
  const { hasRole } = useSession();
  const [, navigate] = useLocation();
  const shown = tab === "audit" && hasRole("EDITOR") ? "audit" : "changes";
  return (
    <Page
      title="Activity"
      description="Joins and leaves as they happen, and who changed segments, rollouts and API keys."
    >
      <Tabs value={shown} onChange={(value) => navigate(`/activity/${value}`)} keepMounted={false}>
        <Tabs.List>
          <Tabs.Tab value="changes">Joins and leaves</Tabs.Tab>
          {hasRole("EDITOR") && <Tabs.Tab value="audit">Audit log</Tabs.Tab>}
        </Tabs.List>
        <Tabs.Panel value="changes" pt="md">
          <ChangesFeed />
        </Tabs.Panel>
        <Tabs.Panel value="audit" pt="md">
          <FilteredAuditLog />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}

function FilteredAuditLog() {
  const [entered, setEntered] = useState({ slug: "", actor: "", from: "", to: "" });
  const [{ slug, actor, from, to }] = useDebouncedValue(entered, SEARCH_DELAY_MILLISECONDS);
  const filters = {
    slug: slug.trim() || undefined,
    actor: actor || undefined,
    from: from || undefined,
    to: to || undefined,
  };
  return (
    <Stack>
      <Group align="flex-start">
        <SlugInput
          label="Segment"
          placeholder="All segments"
          clearable
          value={entered.slug}
          onChange={(value) => setEntered({ ...entered, slug: value })}
        />
        <TextInput
          label="API key"
          placeholder="All API keys"
          value={entered.actor}
          onChange={(event) => setEntered({ ...entered, actor: event.currentTarget.value })}
        />
        <DateRangeInputs
          value={entered}
          onChange={(range) => setEntered({ ...entered, ...range })}
        />
      </Group>
      <AuditLog filters={filters} />
    </Stack>
  );
}
