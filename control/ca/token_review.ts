/** Asks a cluster's API server whom a token speaks for: TokenReview (authentication.k8s.io/v1, CP-476). */
import type { Plain } from "../../base/plain.ts";
import { chain } from "../../base/errors.ts";
import { type KubeApi, KubeError, type KubeObject, KubeUnreachable } from "../../kube/api.ts";
import { TOKEN_REVIEWS } from "../../kube/resource_types.ts";
import { Field, FieldRefusal, formatPath } from "../decode/field.ts";
import { isNamespaceName, isObjectName, type TokenSubject } from "../tokens.ts";
import type { Refused } from "./caller.ts";

/** What the API server says of a review that it cannot read. All else is about us or about it, not about the token. */
const UNUSABLE: readonly number[] = [400, 413, 422];
const GROUP = "system:serviceaccounts";
const POD_NAME = "authentication.kubernetes.io/pod-name";
const POD_UID = "authentication.kubernetes.io/pod-uid";

/** Reviews a token for these audiences. @returns Its subject, or why not. Never throws. */
export async function reviewToken(
  api: KubeApi,
  token: string,
  audiences: readonly string[],
): Promise<TokenSubject | Refused> {
  const review = { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", spec: { token, audiences } };
  let answer: KubeObject;
  try {
    answer = await api.create(TOKEN_REVIEWS, "", review);
  } catch (error) {
    if (!(error instanceof KubeError) && !(error instanceof KubeUnreachable)) throw error;
    const ours = error instanceof KubeError && UNUSABLE.includes(error.status);
    return { refused: `the token cannot be reviewed: ${chain(error)}`, unavailable: !ours };
  }
  try {
    return subjectOf(new Field(answer.status as Plain | undefined), audiences);
  } catch (error) {
    if (!(error instanceof FieldRefusal)) throw error;
    return { refused: `the review of the token cannot be read: ${formatPath(error.path)} ${error.message}` };
  }
}

/** Throws FieldRefusal. */
function subjectOf(status: Field, asked: readonly string[]): TokenSubject | Refused {
  const error = status.get("error").text();
  if (error !== "") return { refused: `the token is refused: ${error.slice(0, 300)}` };
  if (!status.get("authenticated").boolean()) return { refused: "the token is refused" };
  // An API server that knows no audiences answers without any: it has not looked at them, so neither may we believe it.
  const audiences = status.get("audiences").items().map((it) => it.text());
  if (!audiences.some((it) => asked.includes(it))) {
    return { refused: `the token is for ${JSON.stringify(audiences.join(",").slice(0, 100))}, not ${asked.join(",")}` };
  }
  const user = status.get("user");
  if (!user.get("groups").items().some((it) => it.text() === GROUP)) {
    return { refused: "the token is not of a service account" };
  }
  const name = user.get("username").text().split(":");
  const [system, kind, namespace, serviceAccount] = name;
  const wellFormed = name.length === 4 && system === "system" && kind === "serviceaccount";
  if (!wellFormed || !isNamespaceName(namespace!) || !isObjectName(serviceAccount!)) {
    return { refused: "the token's user is not system:serviceaccount:NAMESPACE:NAME" };
  }
  const extra = user.get("extra");
  const first = (key: string) => extra.get(key).items()[0]?.text() ?? "";
  return {
    namespace: namespace!,
    serviceAccount: serviceAccount!,
    pod: first(POD_NAME),
    podUid: first(POD_UID),
    node: "",
  };
}
