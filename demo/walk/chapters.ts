/** The walk: its chapters in their order. */
import { CALLERS } from "./callers.ts";
import { ENROLMENT, STRICT } from "./enrolment.ts";
import { POLICIES } from "./policies.ts";
import type { Chapter } from "./stage.ts";
import { TRAFFIC } from "./traffic.ts";
import { BAD_YAML, CRASH } from "./trouble.ts";

export const CHAPTERS: readonly Chapter[] = [TRAFFIC, POLICIES, CALLERS, STRICT, ENROLMENT, BAD_YAML, CRASH];
