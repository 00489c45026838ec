import type { OperationResult } from "@urql/core";
import { useMutation } from "urql";

import {
    UpdateSegmentMembersDocument,
    type UpdateSegmentMembersMutation,
    type UpdateSegmentMembersMutationVariables,
} from "../../../graphql/operations";

// The result has no user, but pages of users show memberships, too.
const CONTEXT = { additionalTypenames: ["User"] };

type Input = UpdateSegmentMembersMutationVariables["input"];

/** Return the function that adds and removes members. */
export function useUpdateMembers(): (
    input: Input,
) => Promise<OperationResult<UpdateSegmentMembersMutation>> {
    const [, updateMembers] = useMutation(UpdateSegmentMembersDocument);
    return (input) => updateMembers({ input }, CONTEXT);
}
