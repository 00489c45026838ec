import { Button, type ButtonProps } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { Download } from "lucide-react";
import { type MouseEvent, type ReactNode, useState } from "react";

interface Props extends Pick<ButtonProps, "size"> {
  /** A signed link, which may have expired since the page was loaded. */
  href: string;
  /** Return a new link, or null if the file does not exist any more. May throw an `Error`. */
  sign: () => Promise<string | null>;
  "aria-label"?: string;
  children: ReactNode;
}

/** A link to a file in the object store. A plain click requests a new signed link. */
export function DownloadButton({ href, sign, children, ...props }: Props) {
  const [loading, setLoading] = useState(false);
  const download = async (event: MouseEvent) => {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) {
      return; // The browser opens or saves the link itself.
    }
    event.preventDefault();
    setLoading(true);
    try {
      const url = await sign();
      if (!url) {
        throw new Error("The file does not exist any more.");
      }
      window.location.assign(url);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      notifications.show({ color: "red", message });
    } finally {
      setLoading(false);
    }
  };
  return (
    <Button
      {...props}
      component="a"
      href={href}
      variant="default"
      leftSection={<Download size={16} aria-hidden />}
      loading={loading}
      onClick={download}
    >
      {children}
    </Button>
  );
}
