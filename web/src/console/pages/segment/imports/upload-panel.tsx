import { Alert, Button, Group, Paper, Progress, Stack, Text, Title } from "@mantine/core";
import { CircleAlert } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { type Client, useClient } from "urql";

import { describeError } from "../../../components/errors";
import { formatBytes, formatPercent } from "../../../format";
import {
  CancelImportDocument,
  ImportStatusDocument,
  StartImportDocument,
} from "../../../graphql/operations";
import { UploadError, type UploadFailure, uploadFile, type UploadLink } from "./upload";

interface Props {
  /** The import that waits for the file. */
  id: string;
  link: UploadLink;
  file: File;
  onStarted: () => void;
  onCancelled: () => void;
  /** Create the import again, because its link is not valid any more. */
  onNewLink: () => void;
}

interface Failed {
  failure: UploadFailure | "not-started";
  message: string;
}

/** Uploads the file of an import and then starts the import. Leaving the page cancels both. */
export function UploadPanel({ id, link, file, onStarted, onCancelled, onNewLink }: Props) {
  const client = useClient();
  const [share, setShare] = useState(0);
  const [failed, setFailed] = useState<Failed | null>(null);
  const [attempt, setAttempt] = useState(1);
  const isStarted = useRef(false);

  useEffect(() => {
    const abort = new AbortController();
    const run = async () => {
      await uploadFile(link, file, setShare, abort.signal);
      const { data, error } = await client.mutation(StartImportDocument, { id });
      const message = error
        ? describeError(error)
        : data?.startImport?.errors.map((reason) => reason.message).join(" ");
      if (message) {
        setFailed({ failure: "not-started", message });
      } else {
        isStarted.current = true;
        onStarted();
      }
    };
    setFailed(null);
    setShare(0);
    run().catch((error: unknown) => {
      if (error instanceof UploadError && error.failure !== "cancelled") {
        setFailed({ failure: error.failure, message: error.message });
      }
    });
    return () => abort.abort();
    // Each attempt uploads once. The link and the file are fixed for an import.
  }, [attempt, id]);

  useEffect(
    () => () => {
      if (!isStarted.current) {
        void cancelIfNotStarted(client, id);
      }
    },
    [client, id],
  );

  useEffect(() => {
    const warn = (event: BeforeUnloadEvent) => event.preventDefault();
    window.addEventListener("beforeunload", warn);
    return () => window.removeEventListener("beforeunload", warn);
  }, []);

  const needsNewLink = failed?.failure === "expired" || failed?.failure === "rejected";
  return (
    <Paper component="section" withBorder p="lg" maw={720} aria-labelledby="upload-title">
      <Stack>
        <Title order={2} size="h4" id="upload-title" className="break">
          {failed ? "The upload did not succeed" : `Uploading ${file.name}`}
        </Title>
        {failed ? (
          <Alert color="red" role="alert" icon={<CircleAlert aria-hidden />} className="break">
            {failed.message}
          </Alert>
        ) : (
          <>
            <Progress value={share * 100} aria-label="Share of the file that is uploaded" />
            <Text size="sm">
              {share < 1
                ? `${formatPercent(Math.floor(share * 100))} of ${formatBytes(file.size)}. Keep this page open until the upload ends.`
                : "The file is uploaded. The import starts."}
            </Text>
          </>
        )}
        <Group>
          {failed && (
            <Button onClick={needsNewLink ? onNewLink : () => setAttempt(attempt + 1)}>
              Try again
            </Button>
          )}
          <Button variant="default" onClick={onCancelled}>
            {failed ? "Back to the form" : "Cancel the upload"}
          </Button>
        </Group>
      </Stack>
    </Paper>
  );
}

/** Cancel an import, unless the server started it and only its response was lost. */
async function cancelIfNotStarted(client: Client, id: string): Promise<void> {
  const { data } = await client.query(
    ImportStatusDocument,
    { id },
    { requestPolicy: "network-only" },
  );
  if (data?.import?.status === "AWAITING_UPLOAD") {
    await client.mutation(CancelImportDocument, { id });
  }
}
