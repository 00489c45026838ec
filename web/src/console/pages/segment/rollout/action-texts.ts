import type { RolloutAction } from "./rollout-state";

interface ActionTexts {
  /** The button of the page. */
  label: string;
  /** The title of the confirmation, before the slug, and its button. */
  title: string;
  confirm: string;
  effect: string;
  /** The notification afterwards. */
  done: string;
  isDestructive: boolean;
}

export const ACTION_TEXTS: Record<RolloutAction, ActionTexts> = {
  pause: {
    label: "Pause",
    title: "Pause the rollout of",
    confirm: "Pause the rollout",
    effect:
      "The work on the current stage stops after a moment. The members stay. Stages that have not started are delayed by the length of the pause.",
    done: "The rollout is paused.",
    isDestructive: false,
  },
  resume: {
    label: "Resume",
    title: "Resume the rollout of",
    confirm: "Resume the rollout",
    effect: "The rollout continues where it stopped.",
    done: "The rollout continues.",
    isDestructive: false,
  },
  cancel: {
    label: "Cancel the rollout",
    title: "Cancel the rollout of",
    confirm: "Cancel the rollout",
    effect: "The rollout stops permanently. The members that it added stay in the segment.",
    done: "The rollout is cancelled.",
    isDestructive: true,
  },
  withdraw: {
    label: "Withdraw the rollout",
    title: "Withdraw the rollout of",
    confirm: "Withdraw the rollout",
    effect:
      "The rollout stops permanently, and the members that it added leave the segment. Members who were added by hand stay.",
    done: "The members that the rollout added leave.",
    isDestructive: true,
  },
};
