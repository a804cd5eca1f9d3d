/** Writes an OCI image archive (image-spec v1.1, image layout in a tar file) from folders, each a layer. */

/** What the runtime starts, and how the image is called. */
export interface ImageOptions {
  /** `localhost/ambit:0.1.0` */
  readonly name: string;
  readonly architecture: "amd64" | "arm64";
  readonly entrypoint: readonly string[];
  readonly environment: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** Seconds since 1970 of every file and of the image: equal input gives equal bytes. */
  readonly createdAt: number;
}

interface Blob {
  readonly digest: string;
  readonly size: number;
}

interface Layer extends Blob {
  /** Of the layer before its compression. */
  readonly diffId: string;
}

const MEDIA = "application/vnd.oci.image";
const encoder = new TextEncoder();

/** Writes the archive. `folders` are root file systems, the lowest first; `work` is an empty folder for the parts. */
export async function writeOciArchive(
  path: string,
  folders: readonly string[],
  work: string,
  options: ImageOptions,
): Promise<void> {
  const blobs = `${work}/blobs/sha256`;
  await Deno.mkdir(blobs, { recursive: true });
  const layers: Layer[] = [];
  for (const folder of folders) layers.push(await writeLayer(folder, { blobs, work, createdAt: options.createdAt }));
  const config = await writeJson(blobs, {
    created: new Date(options.createdAt * 1_000).toISOString(),
    architecture: options.architecture,
    os: "linux",
    config: { Entrypoint: options.entrypoint, Env: options.environment, Labels: options.labels, WorkingDir: "/" },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const manifest = await writeJson(blobs, {
    schemaVersion: 2,
    mediaType: `${MEDIA}.manifest.v1+json`,
    config: { mediaType: `${MEDIA}.config.v1+json`, ...config },
    layers: layers.map(({ digest, size }) => ({ mediaType: `${MEDIA}.layer.v1.tar+gzip`, digest, size })),
  });
  await Deno.writeTextFile(`${work}/oci-layout`, JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await Deno.writeTextFile(
    `${work}/index.json`,
    JSON.stringify({
      schemaVersion: 2,
      mediaType: `${MEDIA}.index.v1+json`,
      manifests: [{
        mediaType: `${MEDIA}.manifest.v1+json`,
        ...manifest,
        annotations: {
          "org.opencontainers.image.ref.name": options.name.replace(/^.*:/, ""),
          "io.containerd.image.name": options.name,
        },
      }],
    }),
  );
  await tar(work, path, options.createdAt, ["oci-layout", "index.json", "blobs"]);
}

async function writeLayer(
  folder: string,
  { blobs, work, createdAt }: { blobs: string; work: string; createdAt: number },
): Promise<Layer> {
  const plain = `${work}/layer.tar`, packed = `${work}/layer.tar.gz`;
  await tar(folder, plain, createdAt, ["."]);
  const source = await Deno.open(plain);
  await source.readable.pipeThrough(new CompressionStream("gzip")).pipeTo(
    (await Deno.open(packed, { write: true, create: true, truncate: true })).writable,
  );
  const diffId = await digestOf(plain), digest = await digestOf(packed), { size } = await Deno.stat(packed);
  await Deno.remove(plain);
  await Deno.rename(packed, `${blobs}/${digest.replace("sha256:", "")}`);
  return { digest, size, diffId };
}

async function writeJson(blobs: string, value: unknown): Promise<Blob> {
  const bytes = encoder.encode(JSON.stringify(value));
  const digest = hex(await crypto.subtle.digest("SHA-256", bytes));
  await Deno.writeFile(`${blobs}/${digest}`, bytes);
  return { digest: `sha256:${digest}`, size: bytes.length };
}

async function digestOf(path: string): Promise<string> {
  const { success, stdout } = await new Deno.Command("sha256sum", { args: [path] }).output();
  const digest = /^[0-9a-f]{64}/.exec(new TextDecoder().decode(stdout))?.[0];
  if (!success || digest === undefined) throw new Error(`sha256sum could not read ${path}`);
  return `sha256:${digest}`;
}

function hex(bytes: ArrayBuffer): string {
  return [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function tar(folder: string, into: string, createdAt: number, names: readonly string[]): Promise<void> {
  const args = ["--create", "--format=gnu", "--sort=name", `--mtime=@${createdAt}`, "--owner=0", "--group=0"];
  const { success, stderr } = await new Deno.Command("tar", {
    args: [...args, "--numeric-owner", "--file", into, "--directory", folder, ...names],
  }).output();
  if (!success) throw new Error(`tar could not pack ${folder}: ${new TextDecoder().decode(stderr).trim()}`);
}
