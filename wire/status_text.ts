/** Reason phrases of HTTP status codes (RFC 9110 §15), for logs: HTTP/2 itself carries none. */

const PHRASES: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  413: "Content Too Large",
  429: "Too Many Requests",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
};

/** The code and its phrase, such as `401 Unauthorized`; the code alone when it is one that tunnels are not refused by. */
export function statusText(status: number): string {
  const phrase = PHRASES[status];
  return phrase === undefined ? `${status}` : `${status} ${phrase}`;
}
