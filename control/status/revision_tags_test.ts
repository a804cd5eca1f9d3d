/** Whose an object is, by labels, tags and the default revision. */
import { assertEquals } from "@std/assert";
import { RevisionTags } from "./revision_tags.ts";

const labels = (given: Readonly<Record<string, string>> = {}) => new Map(Object.entries(given));
const tagged = (tag: string, revision: string) => labels({ "istio.io/tag": tag, "istio.io/rev": revision });
const NONE = labels();

Deno.test("RevisionTags takes tags from webhooks and from Services (CP-661)", () => {
  const tags = new RevisionTags("blue");
  let news = 0;
  tags.subscribe(() => news++);
  tags.note("MutatingWebhookConfiguration", "istio-revision-tag-prod", tagged("prod", "blue"));
  tags.note("Service", "istiod-revision-tag-canary", tagged("canary", "blue"));
  tags.note("Service", "istiod-revision-tag-old", tagged("old", "green"));
  assertEquals([...tags.mine()].sort(), ["blue", "canary", "prod"]);
  tags.note("Service", "istiod-revision-tag-canary", tagged("canary", "blue"));
  assertEquals(news, 3, "what is the same is no news");
  tags.note("Service", "istiod-revision-tag-canary", tagged("canary", "green"));
  tags.note("MutatingWebhookConfiguration", "istio-revision-tag-prod", undefined);
  assertEquals([...tags.mine()], ["blue"]);
});

Deno.test("RevisionTags.isMine() goes by the object's revision, else its namespace's, be it a tag (CP-662)", () => {
  const tags = new RevisionTags("blue");
  tags.note("Service", "prod", tagged("prod", "blue"));
  const of = (rev: string) => labels({ "istio.io/rev": rev });
  for (const rev of ["blue", "prod"]) {
    assertEquals(tags.isMine(of(rev), NONE), true, rev);
    assertEquals(tags.isMine(NONE, of(rev)), true, rev);
    assertEquals(tags.isMine(of("green"), of(rev)), false, "the object's own label wins");
  }
  assertEquals(tags.isMine(NONE, of("green")), false);
  assertEquals(tags.isMine(NONE, NONE), false, "who is not the default leaves what names no revision");
  assertEquals(tags.isMine(NONE, undefined), true, "a namespace that is not known yet shuts nothing out");
});

Deno.test("RevisionTags gives what names no revision to the default: by tag, else by the validator (CP-662)", () => {
  const tags = new RevisionTags("blue"), validator = (rev: string) => labels({ "istio.io/rev": rev });
  tags.note("ValidatingWebhookConfiguration", "istiod-default-validator", validator("blue"));
  assertEquals([tags.isMine(NONE, NONE), tags.defaultRevision], [true, undefined]);
  tags.note("MutatingWebhookConfiguration", "istio-revision-tag-default", tagged("default", "green"));
  assertEquals([tags.isMine(NONE, NONE), tags.defaultRevision], [false, "green"], "the tag wins over the validator");
  tags.note("MutatingWebhookConfiguration", "istio-revision-tag-default", tagged("default", "blue"));
  assertEquals([tags.isMine(NONE, NONE), tags.defaultRevision], [true, "blue"]);
  tags.note("MutatingWebhookConfiguration", "istio-revision-tag-default", undefined);
  tags.note("ValidatingWebhookConfiguration", "istiod-default-validator", validator("green"));
  assertEquals(tags.isMine(NONE, NONE), false);
  assertEquals(new RevisionTags("").isMine(NONE, NONE), true, "without revisions there is but one, the default");
});
