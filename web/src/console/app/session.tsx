import { Provider } from "urql";
import { createContext, type ReactNode, useCallback, useContext, useMemo, useState } from "react";

import { createClient } from "../graphql/client";
import type { Role } from "../graphql/operations";
import { requiresKey } from "./server";
import { SignIn } from "./sign-in";

const STORAGE_KEY = "segmentql.session";
const KEY_REJECTED = "The server no longer accepts the API key. Enter another one.";
const RANKS: readonly Role[] = ["EVALUATOR", "READER", "EDITOR", "ADMIN"];

export interface Session {
    apiKey: string;
    name: string;
    role: Role;
}

interface SessionContext {
    /** Null if the server requires no API key. */
    session: Session | null;
    /** Whether the role of the API key, or a server without API keys, allows what `role` may do. */
    may: (role: Role) => boolean;
    signOut: () => void;
}

const Context = createContext<SessionContext | null>(null);

export function useSession(): SessionContext {
    const context = useContext(Context);
    if (!context) {
        throw new Error("useSession is called outside SessionProvider");
    }
    return context;
}

/**
 * Ask for an API key if the server requires one, and provide the GraphQL client.
 *
 * The API key stays in the page's memory. It is stored in `sessionStorage`, until the tab is closed,
 * only if the person ticks "Keep me signed in".
 */
export function SessionProvider({ children }: { children: ReactNode }) {
    const [session, setSession] = useState(readSession);
    const [notice, setNotice] = useState<string>();

    const signOut = useCallback(() => {
        sessionStorage.removeItem(STORAGE_KEY);
        setNotice(undefined);
        setSession(null);
    }, []);

    const client = useMemo(
        () =>
            createClient(session?.apiKey ?? null, () => {
                signOut();
                setNotice(KEY_REJECTED);
            }),
        [session, signOut],
    );

    const value = useMemo<SessionContext>(
        () => ({
            session,
            may: (role) => !session || RANKS.indexOf(session.role) >= RANKS.indexOf(role),
            signOut,
        }),
        [session, signOut],
    );

    if (requiresKey && !session) {
        return (
            <SignIn
                notice={notice}
                onSignIn={(newSession, keep) => {
                    if (keep) {
                        sessionStorage.setItem(STORAGE_KEY, JSON.stringify(newSession));
                    }
                    setSession(newSession);
                }}
            />
        );
    }
    return (
        <Context.Provider value={value}>
            {/* A new client has an empty cache: another key may see other data. */}
            <Provider key={session?.apiKey} value={client}>
                {children}
            </Provider>
        </Context.Provider>
    );
}

function readSession(): Session | null {
    const stored = requiresKey ? sessionStorage.getItem(STORAGE_KEY) : null;
    return stored ? (JSON.parse(stored) as Session) : null;
}
