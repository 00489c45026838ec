import { em, type ModalProps } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import { modals } from "@mantine/modals";

import { ACTION_TEXTS } from "./action-texts";
import { ConfirmAction } from "./confirm-action";
import type { Rollout, RolloutAction } from "./rollout-state";
import { SUMMARY_ID } from "./rollout-summary";
import { SetRolloutForm } from "./set-rollout-form";

const DIALOG: Partial<ModalProps> = {
  closeButtonProps: { "aria-label": "Close" },
  // The button that opened the dialog may have disappeared with its action.
  onExitTransitionEnd: () => {
    if (document.activeElement === document.body) {
      document.getElementById(SUMMARY_ID)?.focus();
    }
  },
};

interface SetRolloutOptions {
  slug: string;
  /** The version of the segment that the person sees. */
  version: number;
  rollout: Rollout | null;
}

/** Return a function that opens the dialog in which a person sets a rollout's plan. */
export function useSetRolloutDialog(): (options: SetRolloutOptions) => void {
  const isNarrow = useMediaQuery(`(max-width: ${em(640)})`);
  return (props) => {
    const id = modals.open({
      ...DIALOG,
      title: (
        <span className="break">
          {props.rollout ? "Change the plan of the rollout of" : "Set a rollout of"} {props.slug}
        </span>
      ),
      size: "xl",
      fullScreen: isNarrow,
      // A click beside the dialog must not discard the plan.
      closeOnClickOutside: false,
      children: <SetRolloutForm {...props} onDone={() => modals.close(id)} />,
    });
  };
}

/** Open the dialog that confirms a change of a rollout. */
export function openConfirmDialog(action: RolloutAction, slug: string, rollout: Rollout): void {
  const id = modals.open({
    ...DIALOG,
    title: (
      <span className="break">
        {ACTION_TEXTS[action].title} {slug}?
      </span>
    ),
    children: (
      <ConfirmAction
        action={action}
        slug={slug}
        rollout={rollout}
        onDone={() => modals.close(id)}
      />
    ),
  });
}
