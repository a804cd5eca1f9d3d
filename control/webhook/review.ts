/** AdmissionReview, v1 and v1beta1 (CP-690): what the API server asks, and what it is answered. Pure. */
import type { Plain } from "../../base/plain.ts";
import { Field, FieldRefusal, formatPath } from "../decode/field.ts";
import { judgeObject, type Verdict } from "./judge.ts";

const VERSIONS = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] as const;
const JUDGED = ["CREATE", "UPDATE"];
/** An API server takes 4 KiB of warnings together, and cuts none itself before 256 letters. */
const WARNING_LETTERS_MAX = 256;
const WARNINGS_MAX = 15;
const MESSAGE_LETTERS_MAX = 2_000;

export interface Answered {
  readonly body: object;
  readonly outcome: "allowed" | "denied" | "unreadable";
}

/** @param text a request's body. */
export function answerReview(text: string): Answered {
  let version: string = VERSIONS[0], uid = "";
  const respond = (outcome: Answered["outcome"], { problems, warnings }: Verdict): Answered => ({
    outcome,
    body: {
      apiVersion: version,
      kind: "AdmissionReview",
      response: {
        uid,
        allowed: outcome === "allowed",
        ...(problems.length === 0 ? {} : {
          status: {
            status: "Failure",
            reason: "Invalid",
            code: 422,
            message: cut(problems.join("; "), MESSAGE_LETTERS_MAX),
          },
        }),
        ...(warnings.length === 0
          ? {}
          : { warnings: warnings.slice(0, WARNINGS_MAX).map((it) => cut(it, WARNING_LETTERS_MAX)) }),
      },
    },
  });
  try {
    const review = new Field(parse(text));
    version = review.get("apiVersion").oneOf(VERSIONS, VERSIONS[0]);
    const request = review.get("request").required();
    uid = request.get("uid").required().text();
    const judged = JUDGED.includes(request.get("operation").required().text()) &&
      request.get("subResource").text() === "";
    if (!judged) return respond("allowed", { problems: [], warnings: [] });
    const kind = request.get("kind").required();
    const object = request.get("object").required().value as Plain;
    const verdict = judgeObject(kind.get("group").text(), kind.get("kind").required().text(), object);
    return respond(verdict.problems.length === 0 ? "allowed" : "denied", verdict);
  } catch (error) {
    if (!(error instanceof FieldRefusal)) throw error;
    return respond("unreadable", {
      problems: [`the review cannot be read: ${formatPath(error.path)}: ${error.message}`],
      warnings: [],
    });
  }
}

function parse(text: string): Plain {
  try {
    return JSON.parse(text) as Plain;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new FieldRefusal([], "is no JSON");
  }
}

function cut(text: string, lettersMax: number): string {
  return text.length <= lettersMax ? text : `${text.slice(0, lettersMax - 1)}…`;
}
