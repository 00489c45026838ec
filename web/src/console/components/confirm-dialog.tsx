import { Button, Group, Modal, Stack } from "@mantine/core";
import type { FormEvent, ReactNode } from "react";

import { FormErrors } from "./form-errors";

interface ConfirmationProps {
  /** What the action does. */
  children: ReactNode;
  /** The button that does it. It repeats the verb and the object of the dialog's title. */
  confirmLabel: string;
  cancelLabel?: string | undefined;
  isDestructive?: boolean;
  disabled?: boolean;
  submitting: boolean;
  /** Why the server rejected the action. */
  errors: readonly string[];
  onConfirm: () => void;
  onClose: () => void;
}

/** The content of a dialog that confirms an action: text, errors and two buttons. */
export function Confirmation({
  children,
  confirmLabel,
  cancelLabel = "Cancel",
  isDestructive = true,
  disabled = false,
  submitting,
  errors,
  onConfirm,
  onClose,
}: ConfirmationProps) {
  const onSubmit = (event: FormEvent) => {
    event.preventDefault();
    if (!disabled && !submitting) {
      onConfirm();
    }
  };
  return (
    <form onSubmit={onSubmit} noValidate>
      <Stack>
        {children}
        <FormErrors messages={errors} />
        <Group justify="flex-end">
          {/* An input before it can have this attribute, too. The first one gets the focus. */}
          <Button variant="default" data-autofocus onClick={onClose}>
            {cancelLabel}
          </Button>
          <Button
            type="submit"
            color={isDestructive ? "red" : undefined}
            loading={submitting}
            disabled={disabled}
          >
            {confirmLabel}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

interface Props extends ConfirmationProps {
  opened: boolean;
  /** A question. */
  title: string;
}

/** A dialog that confirms an action. */
export function ConfirmDialog({ opened, title, onConfirm, ...props }: Props) {
  // The second click of a double click may arrive while the dialog disappears.
  const confirm = () => {
    if (opened) {
      onConfirm();
    }
  };
  return (
    <Modal opened={opened} onClose={props.onClose} title={<span className="break">{title}</span>}>
      <Confirmation {...props} onConfirm={confirm} />
    </Modal>
  );
}
