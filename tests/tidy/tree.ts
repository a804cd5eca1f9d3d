/** The tracked files of the repository, read once for all checks. */

const ROOT = new URL("../../", import.meta.url);

export interface TrackedFile {
  /** From the repository's root. */
  readonly path: string;
  readonly text: string;
}

/** Where the repository is, as a URL with a slash at its end. */
export function rootUrl(): URL {
  return ROOT;
}

const TEXT = /(\.(ts|md|json|yaml|yml|proto|txt|html|css|js|conf|service)|(^|\/)[^.]+|\.gitignore)$/;

/** All tracked text files that exist. Names are NUL-separated, so that any name is told whole. */
export async function trackedFiles(): Promise<readonly TrackedFile[]> {
  const { stdout, success } = await new Deno.Command("git", { args: ["ls-files", "-z"], cwd: ROOT }).output();
  if (!success) throw new Error("tidy reads the files that git tracks: run it in a clone");
  const files: TrackedFile[] = [];
  for (const path of new TextDecoder().decode(stdout).split("\0")) {
    if (path === "" || !TEXT.test(path)) continue;
    try {
      files.push({ path, text: await Deno.readTextFile(new URL(path, ROOT)) });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // Deleted, and the deletion not yet committed.
    }
  }
  return files;
}
