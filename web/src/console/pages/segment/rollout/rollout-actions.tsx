import { Button } from "@mantine/core";
import { Ban, Pause, Play, Undo2, type LucideIcon } from "lucide-react";

import { ACTION_TEXTS } from "./action-texts";
import { openConfirmDialog } from "./dialogs";
import { allowedActions, type Rollout, type RolloutAction } from "./rollout-state";

const ICONS: Record<RolloutAction, LucideIcon> = {
  pause: Pause,
  resume: Play,
  cancel: Ban,
  withdraw: Undo2,
};

interface Props {
  slug: string;
  rollout: Rollout;
}

/** The buttons of the actions that the rollout's status allows. */
export function RolloutActions({ slug, rollout }: Props) {
  return allowedActions(rollout.status).map((action) => {
    const Icon = ICONS[action];
    const isRed = action === "withdraw";
    return (
      <Button
        key={action}
        variant={isRed ? "light" : "default"}
        color={isRed ? "red" : undefined}
        leftSection={<Icon size={16} aria-hidden />}
        onClick={() => openConfirmDialog(action, slug, rollout)}
      >
        {ACTION_TEXTS[action].label}
      </Button>
    );
  });
}
