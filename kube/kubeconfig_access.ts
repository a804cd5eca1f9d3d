/** A kubeconfig, read with the files it names, to access to its context's API server. */
import { MeshError } from "../base/errors.ts";
import { type Credentials, fixedCredentials, type KubeAccess } from "./access.ts";
import { ExecCredentials } from "./exec_credentials.ts";
import { KeyPairFiles, readTextBounded, TokenFile } from "./file_credentials.ts";
import { type KubeconfigContext, readKubeconfig, type Source } from "./kubeconfig.ts";
import { certificatesProblem, keyPairProblem } from "./pem_files.ts";
import { dialBy, environmentsProxy } from "./proxy_connection.ts";

/** What reads files, runs programs or trusts blindly: never taken from a Secret unless it is named (CP-120). */
export const INSECURE_FIELDS = [
  "exec",
  "tokenFile",
  "clientCertificate",
  "clientKey",
  "certificateAuthority",
  "insecureSkipTLSVerify",
] as const;
export type InsecureField = typeof INSECURE_FIELDS[number];

/** @param path a file's name; several joined by `:` are not merged but refused. @throws MeshError AMB0800 to AMB0808. */
export async function loadKubeconfig(path: string, context?: string): Promise<KubeAccess> {
  let text: string;
  try {
    text = await readTextBounded(path);
  } catch (error) {
    throw new MeshError("AMB0800", `reading kubeconfig ${path}`, {
      remedy: "name one readable file by --kubeconfig or KUBECONFIG; several joined by colons are not merged",
      cause: error,
    });
  }
  const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/")) || "/" : ".";
  return await accessOf(readKubeconfig(text, path, context), { source: path, folder });
}

/** Of a kubeconfig from a Secret: it may read no file and run no program but by `allowed`. @throws MeshError as {@link loadKubeconfig}. */
export async function kubeconfigAccess(
  text: string,
  options: { readonly source: string; readonly allowed: ReadonlySet<string> },
): Promise<KubeAccess> {
  const context = readKubeconfig(text, options.source), asked = insecureFields(context);
  const refused = asked.filter((field) => !options.allowed.has(field));
  if (refused.length > 0) {
    const where = `${options.source}, context "${context.name}"`;
    throw new MeshError("AMB0808", `reading kubeconfig ${where}: ${refused.join(", ")}: not allowed from a Secret`, {
      remedy:
        "put the data itself into the Secret, or name what you trust in PILOT_INSECURE_MULTICLUSTER_KUBECONFIG_OPTIONS",
    });
  }
  return await accessOf(context, { source: options.source, folder: "." });
}

function insecureFields(context: KubeconfigContext): InsecureField[] {
  const isFile = (source: Source | undefined) => source !== undefined && "path" in source;
  const uses: Record<InsecureField, boolean> = {
    exec: context.exec !== undefined,
    tokenFile: isFile(context.token),
    clientCertificate: isFile(context.certificate?.certificate),
    clientKey: isFile(context.certificate?.key),
    certificateAuthority: isFile(context.ca),
    insecureSkipTLSVerify: context.insecure,
  };
  return INSECURE_FIELDS.filter((field) => uses[field]);
}

async function accessOf(
  context: KubeconfigContext,
  { source, folder }: { readonly source: string; readonly folder: string },
): Promise<KubeAccess> {
  const where = `${source}, context "${context.name}"`;
  const absolute = (path: string) => path.startsWith("/") ? path : `${folder}/${path}`;
  let ca: string | undefined;
  if (context.ca !== undefined) {
    const field = "path" in context.ca ? "certificate-authority" : "certificate-authority-data";
    ca = await textOf(context.ca, absolute, where, field);
    const problem = certificatesProblem(ca);
    if (problem !== undefined) {
      throw new MeshError("AMB0806", `reading kubeconfig ${where}: ${field}: ${problem}`, {
        remedy: "give the cluster's CA as PEM",
      });
    }
  }
  const { server, serverName, insecure, headers, namespace } = context;
  const credentials = await credentialsOf(context, { ca, absolute, folder, where });
  const proxy = context.proxy?.proxy ?? environmentsProxy(server, Deno.env.toObject());
  const dial = proxy && dialBy(proxy);
  return { server, ca, serverName, insecure, credentials, headers, namespace, source: where, dial };
}

async function textOf(
  source: Source,
  absolute: (path: string) => string,
  where: string,
  field: string,
): Promise<string> {
  if ("data" in source) return source.data;
  const path = absolute(source.path);
  try {
    return await readTextBounded(path);
  } catch (error) {
    throw new MeshError("AMB0806", `reading kubeconfig ${where}: ${field}: the file ${path}`, {
      remedy: "check that it is there and readable; relative names count from the kubeconfig's folder",
      cause: error,
    });
  }
}

async function credentialsOf(
  context: KubeconfigContext,
  at: { ca: string | undefined; absolute: (path: string) => string; folder: string; where: string },
): Promise<Credentials> {
  const { token, certificate, exec } = context;
  const ways: Credentials[] = [];
  if (token !== undefined) {
    ways.push("data" in token ? fixedCredentials({ token: token.data }) : new TokenFile(at.absolute(token.path)));
  }
  if (certificate !== undefined && "data" in certificate.certificate && "data" in certificate.key) {
    const keyPair = { certificate: certificate.certificate.data, key: certificate.key.data };
    const problem = keyPairProblem(keyPair);
    if (problem !== undefined) {
      throw new MeshError(
        "AMB0806",
        `reading kubeconfig ${at.where}: client-certificate-data and client-key-data: ${problem}`,
        {
          remedy: "give a PEM certificate and the key that belongs to it",
        },
      );
    }
    ways.push(fixedCredentials({ keyPair }));
  } else if (certificate !== undefined && "path" in certificate.certificate && "path" in certificate.key) {
    ways.push(new KeyPairFiles(at.absolute(certificate.certificate.path), at.absolute(certificate.key.path)));
  }
  // As with kubectl, a program is asked only where the file itself holds nothing.
  if (exec !== undefined && ways.length === 0) {
    const { serverName, insecure, server } = context;
    const cluster = { server: server.href, ca: at.ca, serverName, insecure, proxyUrl: context.proxy?.url };
    ways.push(new ExecCredentials(exec, { cluster, folder: at.folder, source: at.where }));
  }
  const all = ways.length === 1 ? ways[0]! : both(ways);
  if (exec === undefined) await all.current(new AbortController().signal); // Files that are missing are told now.
  return all;
}

/** A certificate for the connection and a token in it. */
function both(ways: readonly Credentials[]): Credentials {
  const parts = new WeakMap<object, readonly { way: Credentials; credential: object }[]>();
  let last: { readonly keys: readonly object[]; readonly credential: object } | undefined;
  return {
    async current(signal) {
      const found = await Promise.all(ways.map(async (way) => ({ way, credential: await way.current(signal) })));
      const keys = found.map((it) => it.credential);
      if (last !== undefined && keys.every((key, row) => key === last!.keys[row])) return last.credential;
      const credential = Object.assign({}, ...keys);
      parts.set(credential, found);
      last = { keys, credential };
      return credential;
    },
    refused(credential) {
      for (const { way, credential: part } of parts.get(credential) ?? []) way.refused(part);
    },
  };
}
