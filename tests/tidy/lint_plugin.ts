/** The house rules that a linter can hold, in the editor and in `deno task lint`. The rules themselves are in layers.ts. */
import {
  ASYNC_NAMES,
  importProblem,
  IMPURE_NAMES,
  isSynchronous,
  isTest,
  OUTSIDE,
  PURE_FOLDERS,
  roomOf,
} from "./layers.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const HINT = "The rules and their reasons are in tests/tidy/layers.ts and ARCHITECTURE.md";

function fileOf({ filename }: Deno.lint.RuleContext): string {
  return filename.startsWith(ROOT) ? filename.slice(ROOT.length) : filename.replace(/^\//, "");
}

const imports: Deno.lint.Rule = {
  create(context) {
    const check = (node: Deno.lint.Node & { source: unknown; importKind?: string; exportKind?: string }) => {
      const specifier = (node.source as { value?: unknown } | null)?.value;
      const types = node.importKind === "type" || node.exportKind === "type";
      const message = typeof specifier === "string" ? importProblem(fileOf(context), specifier, types) : undefined;
      if (message !== undefined) context.report({ node, message, hint: HINT });
    };
    return {
      ImportDeclaration: check,
      ExportNamedDeclaration: check,
      ExportAllDeclaration: check,
      ImportExpression: check,
    };
  },
};

const words: Deno.lint.Rule = {
  create(context) {
    const file = fileOf(context), room = roomOf(file);
    if (isTest(file) || OUTSIDE.includes(room)) return {};
    const pure = PURE_FOLDERS.includes(room), synchronous = isSynchronous(file);
    const refuse = (node: Deno.lint.Node, message: string) => context.report({ node, message, hint: HINT });
    const checkName = (node: Deno.lint.Node, name: string) => {
      if (pure && IMPURE_NAMES.includes(name)) refuse(node, `${room}/ is pure and may not name ${name}`);
      if (synchronous && ASYNC_NAMES.includes(name)) refuse(node, `worker/ is a synchronous world: no ${name}`);
    };
    const checkAsync = (node: Deno.lint.Node & { async?: boolean }) => {
      if (synchronous && node.async !== false) refuse(node, "worker/ is a synchronous world: no async, no await");
    };
    const checkCallee = ({ callee }: Deno.lint.CallExpression | Deno.lint.NewExpression) => {
      if (callee.type === "Identifier") checkName(callee, callee.name);
    };
    return {
      MemberExpression(node) {
        const object = node.object.type === "Identifier" ? node.object.name : "";
        const property = node.property.type === "Identifier" ? node.property.name : "";
        const ffi = object === "Deno" && (property === "dlopen" || property.startsWith("Unsafe"));
        if (ffi && room !== "os") refuse(node, `only os/ may name Deno.${property}`);
        else if (pure && object === "Math" && property === "random") refuse(node, `${room}/ may not name Math.random`);
        else checkName(node, object === "self" || object === "globalThis" ? property : object);
      },
      CallExpression: checkCallee,
      NewExpression: checkCallee,
      AwaitExpression: checkAsync,
      FunctionDeclaration: checkAsync,
      FunctionExpression: checkAsync,
      ArrowFunctionExpression: checkAsync,
    };
  },
};

export default { name: "house", rules: { imports, words } } satisfies Deno.lint.Plugin;
