/** What the API server wrote down of the calls that it was asked: who, what, and which rule allowed it. */

/** Every call is written down once it is answered, without what was said. */
export const AUDIT_POLICY = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{ level: Metadata }]
`;

/** One call, answered or refused. */
export interface AuditedCall {
  readonly user: string;
  readonly verb: string;
  readonly group: string;
  /** With its subresource: `pods/status`. Empty for calls that are of no resource. */
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
  readonly allowed: boolean;
  readonly status: number;
}

interface AuditLine {
  readonly verb: string;
  readonly user: { readonly username?: string };
  readonly objectRef?: {
    readonly apiGroup?: string;
    readonly resource?: string;
    readonly subresource?: string;
    readonly namespace?: string;
    readonly name?: string;
  };
  readonly responseStatus?: { readonly code?: number };
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Reads the log's whole lines. */
export async function readAudit(path: string): Promise<AuditedCall[]> {
  const text = await Deno.readTextFile(path);
  return text.slice(0, text.lastIndexOf("\n") + 1).split("\n").filter((line) => line !== "").map(call);
}

function call(line: string): AuditedCall {
  const { verb, user, objectRef = {}, responseStatus, annotations = {} } = JSON.parse(line) as AuditLine;
  const { resource = "", subresource } = objectRef;
  return {
    user: user.username ?? "", // Whose token is no longer good is nobody.
    verb,
    group: objectRef.apiGroup ?? "",
    resource: subresource === undefined ? resource : `${resource}/${subresource}`,
    namespace: objectRef.namespace ?? "",
    name: objectRef.name ?? "",
    allowed: annotations["authorization.k8s.io/decision"] === "allow",
    status: responseStatus?.code ?? 0,
  };
}
