import { Alert } from "@mantine/core";
import { CircleAlert } from "lucide-react";

/** The errors that belong to no field. */
export function FormErrors({ messages }: { messages: readonly string[] }) {
  return messages.map((message) => (
    <Alert
      key={message}
      color="red"
      role="alert"
      icon={<CircleAlert aria-hidden />}
      className="break"
    >
      {message}
    </Alert>
  ));
}
