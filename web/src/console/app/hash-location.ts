import type { BaseLocationHook } from "wouter";
import { useHashLocation } from "wouter/use-hash-location";

/**
 * The path after `#`, which names the page, so that the server has one address for the console.
 *
 * wouter decodes the path before it separates the parameters, which changes those with a percent
 * sign. This hook escapes the percent signs, so that the parameters are as in the address.
 */
export const useEncodedHashLocation: BaseLocationHook & {
  hrefs: (href: string) => string;
} = () => {
  const [location, navigate] = useHashLocation();
  return [location.replaceAll("%", "%25"), navigate];
};

// wouter writes the addresses of links with it.
useEncodedHashLocation.hrefs = (href) => `#${href}`;

/** Return a decoded part of an address, or null if it is malformed. */
export function decodePart(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}
