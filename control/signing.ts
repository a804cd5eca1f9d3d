/** The CA and whom it believes: key material, the server's own certificate, tokens, and the certificate service. */
import type * as grpc from "@grpc/grpc-js";
import { CertificateAuthority } from "./ca/authority.ts";
import { addCertificateService } from "./ca/ca_grpc.ts";
import { type AuthenticationWay, Authenticator } from "./ca/caller.ts";
import { CertificateService } from "./ca/certificate_service.ts";
import { ClientCertificateWay } from "./ca/client_certificate.ts";
import { type KeyMaterial, loadPluggedIn, loadSelfSigned } from "./ca/key_material.ts";
import { KubernetesTokenWay } from "./ca/kubernetes_token.ts";
import { watchMaterial } from "./ca/material_watch.ts";
import { NodeAuthorizer } from "./ca/node_authorizer.ts";
import { OwnTokenWay } from "./ca/own_token.ts";
import { openStateFolder, publishFile } from "./ca/state_files.ts";
import type { IstiodConfig } from "./config.ts";
import type { MeshSettings } from "./mesh_settings.ts";
import type { Part, Role, Self } from "./role.ts";
import { TokenIssuer } from "./tokens.ts";
import { ListenerCredentials, type ServerTls } from "./xds/secure_server.ts";

/** The CA, opened and serving nobody yet. */
export interface Signing {
  readonly authority: CertificateAuthority;
  readonly authenticator: Authenticator;
  /** What the TLS listeners present; renewed with the CA's own material (CP-006). */
  readonly credentials: ListenerCredentials;
}

/** Loads or makes the CA. @throws MeshError AMB021x */
export async function openSigning(role: Role): Promise<Signing> {
  const { config, self, mesh } = role;
  await openStateFolder(config.stateDir);
  const authority = await openAuthority(config);
  await publishRoots(config, authority.material);
  const authenticator = new Authenticator([
    new ClientCertificateWay((domain) => isOurs(mesh, domain)),
    await tokenWay(role),
  ]);
  const credentials = new ListenerCredentials(await serverTls(config, self, authority));
  return { authority, authenticator, credentials };
}

/** A cluster vouches for its tokens; where there is none, a key of our own does (CP-476). */
async function tokenWay({ config, api, clusters, mesh }: Role): Promise<AuthenticationWay> {
  const trustDomain = () => mesh.now.trustDomain, now = Date.now;
  if (api !== undefined) {
    return new KubernetesTokenWay({ clusters, audiences: config.tokenAudiences, trustDomain, now });
  }
  const tokens = await TokenIssuer.open(config.stateDir);
  return new OwnTokenWay({ tokens, trustDomain, clusterId: config.clusterId, now });
}

/** Adds the certificate service to a server. */
export function addSigning(server: grpc.Server, role: Role, { authority, authenticator }: Signing): void {
  const { config, clusters, mesh, metrics } = role, log = role.log.child("ca");
  const trustedAccounts = new Set(config.trustedNodeAccounts);
  const certificates = new CertificateService({
    authority,
    authenticator,
    authorizer: new NodeAuthorizer({ clusters, trustedAccounts, isOurs: (domain) => isOurs(mesh, domain) }),
    defaultTtlMs: config.defaultCertificateTtlMs,
    maxTtlMs: config.maxCertificateTtlMs,
    metrics,
    log,
  });
  addCertificateService(server, certificates, log);
}

/** The trust domain that identities are signed in, and those that it was called before (CP-484). */
function isOurs({ now }: MeshSettings, domain: string): boolean {
  return domain === now.trustDomain || now.trustDomainAliases.includes(domain);
}

/** Follows plugged-in CA files and takes what changes into use. */
export function startRotation({ config, self, log, signal }: Role, { authority, credentials }: Signing): Part {
  if (config.caDir === undefined) return { stopped: Promise.resolve() };
  const onChange = async (material: KeyMaterial) => {
    await authority.replace(material);
    credentials.update(await serverTls(config, self, authority));
    await publishRoots(config, material);
  };
  const options = { folder: config.caDir, material: authority.material, onChange, log: log.child("ca") };
  return { stopped: watchMaterial(options, signal) };
}

async function openAuthority({ caDir, stateDir, trustDomain }: IstiodConfig): Promise<CertificateAuthority> {
  const material = caDir === undefined
    ? await loadSelfSigned(stateDir, trustDomain, Date.now())
    : await loadPluggedIn(caDir, Date.now()); // CP-500: never a root of our own in its stead.
  return await CertificateAuthority.create(material);
}

async function publishRoots({ stateDir }: IstiodConfig, { rootsPem }: KeyMaterial): Promise<void> {
  await publishFile(`${stateDir}/root-cert.pem`, rootsPem);
}

async function serverTls(config: IstiodConfig, self: Self, authority: CertificateAuthority): Promise<ServerTls> {
  const hosts = [...ownHosts(self), ...config.serverHosts];
  return { ...await authority.issueServer(hosts), rootsPem: authority.material.rootsPem };
}

/** The names that clients in a cluster use (CP-004). */
function ownHosts({ namespace, revision }: Self): string[] {
  const names = ["istiod", "istiod-remote", "istio-pilot"];
  if (revision !== "" && revision !== "default") names.push(`istiod-${revision}`);
  return names.map((name) => `${name}.${namespace}.svc`);
}
