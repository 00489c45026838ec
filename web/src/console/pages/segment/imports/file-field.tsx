import { FileInput, Paper, type FileInputProps, Text } from "@mantine/core";
import { FileUp } from "lucide-react";
import { type DragEvent, useState } from "react";

import { formatBytes } from "../../../format";

interface Props extends Omit<FileInputProps, "value" | "onChange"> {
  value: File | null;
  onChange: (file: File | null) => void;
}

/** A file, which is chosen in a dialog of the browser or dropped onto the field. */
export function FileField({ value, onChange, ...props }: Props) {
  const [isOver, setIsOver] = useState(false);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setIsOver(false);
    const file = event.dataTransfer.files[0];
    if (file) {
      onChange(file);
    }
  };
  return (
    <Paper
      withBorder
      p="md"
      bg={isOver ? "var(--mantine-primary-color-light)" : undefined}
      style={{ borderStyle: "dashed" }}
      onDragOver={(event) => {
        event.preventDefault();
        setIsOver(true);
      }}
      onDragLeave={() => setIsOver(false)}
      onDrop={drop}
    >
      <FileInput
        {...props}
        value={value}
        onChange={onChange}
        clearable
        clearButtonProps={{ "aria-label": "Remove the file" }}
        leftSection={<FileUp size={16} aria-hidden />}
        placeholder="Choose a file, or drop it here"
      />
      {value && (
        <Text size="sm" mt="xs">
          {formatBytes(value.size)}
        </Text>
      )}
    </Paper>
  );
}
