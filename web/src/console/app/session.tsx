import { Provider } from "urql";
import { createContext, type ReactNode, useCallback, useContext, useMemo, useState } from "react";

import { createClient } from "../graphql/client";
import type { Role } from "../graphql/operations";
import { requiresKey } from "./server";
import { SignIn } from "./sign-in";
import { readSession, removeSession, ROLES, type Session, storeSession } from "./stored-session";

const KEY_REJECTED = "The server no longer accepts the API key. Enter another one.";

interface SessionContext {
  /** Null if the server requires no API key. */
  session: Session | null;
  /** Whether the API key has this role or a higher one. Always true if the server requires no API key. */
  hasRole: (role: Role) => boolean;
  signOut: () => void;
  /** Ask for another API key, because the server rejects this one. */
  rejectKey: () => void;
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
  const [session, setSession] = useState(() => (requiresKey ? readSession(sessionStorage) : null));
  const [notice, setNotice] = useState<string>();

  const signOut = useCallback(() => {
    removeSession(sessionStorage);
    setNotice(undefined);
    setSession(null);
  }, []);

  const rejectKey = useCallback(() => {
    signOut();
    setNotice(KEY_REJECTED);
  }, [signOut]);

  const client = useMemo(
    () => createClient(session?.apiKey ?? null, rejectKey),
    [session, rejectKey],
  );

  const value = useMemo<SessionContext>(
    () => ({
      session,
      hasRole: (role) => !session || ROLES.indexOf(session.role) >= ROLES.indexOf(role),
      signOut,
      rejectKey,
    }),
    [session, signOut, rejectKey],
  );

  if (requiresKey && !session) {
    return (
      <SignIn
        notice={notice}
        onSignIn={(newSession, keep) => {
          if (keep) {
            storeSession(sessionStorage, newSession);
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
