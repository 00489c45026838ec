/** What the removal of a user by hand means for the rollout of the segment. */
export const EXCLUSION =
  "The segment's rollout does not add a removed user again until someone adds the user by hand.";
