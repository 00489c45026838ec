import { Alert, Button, Group, Text } from "@mantine/core";
import { CircleAlert } from "lucide-react";
import { Component, type ReactNode } from "react";

interface Props {
  /** The address of the page. Another page is shown after an error. */
  location: string;
  children: ReactNode;
}

interface State {
  failed: boolean;
  location: string;
}

/** Show an alert instead of a page that cannot be rendered. */
export class ErrorBoundary extends Component<Props, State> {
  override state: State = { failed: false, location: this.props.location };

  static getDerivedStateFromError(): Partial<State> {
    return { failed: true };
  }

  static getDerivedStateFromProps({ location }: Props, state: State): State | null {
    return location === state.location ? null : { failed: false, location };
  }

  override render() {
    if (!this.state.failed) {
      return this.props.children;
    }
    return (
      <Alert
        color="red"
        variant="light"
        role="alert"
        icon={<CircleAlert aria-hidden />}
        title="This page cannot be shown"
      >
        <Group justify="space-between">
          <Text size="sm">The console has an error. Nothing was changed.</Text>
          <Button size="xs" variant="default" onClick={() => window.location.reload()}>
            Reload the page
          </Button>
        </Group>
      </Alert>
    );
  }
}
