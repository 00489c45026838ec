// Uploads a file to the object store by a signed link.

import type { CreateImportMutation } from "../../../graphql/operations";

export type UploadFailure = "unreachable" | "rejected" | "expired" | "cancelled";

/** The request that uploads the file of an import. */
export type UploadLink = NonNullable<NonNullable<CreateImportMutation["createImport"]>["upload"]>;

/** The upload did not succeed. */
export class UploadError extends Error {
  constructor(
    readonly failure: UploadFailure,
    message: string,
  ) {
    super(message);
  }
}

/**
 * Upload a file. `fetch` does not report the progress of an upload, so this uses `XMLHttpRequest`.
 *
 * @param onProgress Called with the share of the file that is sent, 0 to 1.
 * @throws UploadError
 */
export function uploadFile(
  link: UploadLink,
  file: File,
  onProgress: (share: number) => void,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const fail = (failure: UploadFailure) =>
      reject(new UploadError(failure, describeUploadFailure(failure, link.url)));
    request.open(link.method, link.url);
    for (const { name, value } of link.headers) {
      // The browser sets this header itself, and does not allow pages to do so.
      if (name.toLowerCase() !== "content-length") {
        request.setRequestHeader(name, value);
      }
    }
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 1);
    request.onload = () => {
      const failure = failureOf(request.status, link.expiresAt);
      if (failure) {
        fail(failure);
      } else {
        resolve();
      }
    };
    request.onerror = () => fail("unreachable");
    request.onabort = () => fail("cancelled");
    signal.addEventListener("abort", () => request.abort(), { once: true });
    // Without a media type, the browser adds no header that the signature does not have.
    request.send(file.slice(0, file.size, ""));
  });
}

/** Return why the store did not store the file, or null if it did. */
export function failureOf(
  status: number,
  expiresAt: string,
  now = Date.now(),
): UploadFailure | null {
  if (status >= 200 && status < 300) {
    return null;
  }
  if (status >= 500) {
    return "unreachable";
  }
  return Date.parse(expiresAt) <= now ? "expired" : "rejected";
}

/** Return what happened, and what the person can do. */
export function describeUploadFailure(failure: UploadFailure, url: string): string {
  switch (failure) {
    case "unreachable":
      return (
        `The file store at ${new URL(url).origin} does not accept the file. Check the ` +
        "connection, and that the file was not changed or moved. If this happens again, " +
        "an operator must allow uploads from this page in the store."
      );
    case "rejected":
      return (
        "The file store rejected the file. Perhaps the file was changed after you chose " +
        "it, or the link for the upload is not valid."
      );
    case "expired":
      return "The link for the upload has expired. A new attempt gets a new link.";
    case "cancelled":
      return "The upload was cancelled.";
  }
}
