import { ActionIcon, Button } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { Download } from "lucide-react";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { useClient } from "urql";

import { describeError } from "../../../components/errors";
import { DownloadButton } from "../../../components/download-button";
import { ImportResultDocument, type RowOutcome } from "../../../graphql/operations";

const INTERVAL_MILLISECONDS = 1000;
const MAX_READS = 60;

type Props = { id: string } & (
  | { outcomes: RowOutcome[]; label: string; children?: undefined; href?: undefined }
  | { outcomes: RowOutcome[]; children: ReactNode; label?: undefined; href?: undefined }
  | { href: string; children: ReactNode; label?: undefined; outcomes?: undefined }
);

/** Downloads the file with the outcome of each row, or only the rows with some outcomes. */
export function ResultButton({ id, outcomes, href, label, children }: Props) {
  const client = useClient();
  const [loading, setLoading] = useState(false);
  const isMounted = useRef(true);
  useEffect(() => {
    isMounted.current = true;
    return () => {
      isMounted.current = false;
    };
  }, []);

  const read = async () => {
    const { data, error } = await client.query(
      ImportResultDocument,
      { id, outcomes },
      { requestPolicy: "network-only" },
    );
    if (error) {
      throw new Error(describeError(error));
    }
    return data?.import?.resultUrl ?? null;
  };
  if (href) {
    return (
      <DownloadButton href={href} sign={read}>
        {children}
      </DownloadButton>
    );
  }

  // The first read schedules the file. It is ready when a later read returns its link.
  const download = async () => {
    setLoading(true);
    try {
      for (let reads = 0; reads < MAX_READS && isMounted.current; reads += 1) {
        const url = await read();
        if (url) {
          window.location.assign(url);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, INTERVAL_MILLISECONDS));
      }
      if (isMounted.current) {
        throw new Error("The file is not ready yet. Try again later.");
      }
    } catch (error) {
      notifications.show({ color: "red", message: String((error as Error).message) });
    } finally {
      setLoading(false);
    }
  };
  const onClick = () => void download();
  if (label) {
    return (
      <ActionIcon variant="subtle" aria-label={label} title={label} {...{ loading, onClick }}>
        <Download size={16} aria-hidden />
      </ActionIcon>
    );
  }
  return (
    <Button
      variant="default"
      leftSection={<Download size={16} aria-hidden />}
      {...{ loading, onClick }}
    >
      {children}
    </Button>
  );
}
