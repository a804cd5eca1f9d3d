/** The validation webhook as a part of role istiod: its listener, and its registration with the cluster. */
import { listenOn } from "../listening.ts";
import { readTlsRules } from "../grpc/tls_rules.ts";
import type { Part, Role } from "../role.ts";
import type { Signing } from "../signing.ts";
import { WebhookRegistration } from "./configuration.ts";
import { WebhookServer } from "./server.ts";

/** The port it listens on where nobody says otherwise. */
const HTTPS_PORT = 15017;

export interface WebhookPart extends Part {
  /** Of the listener. */
  readonly httpsPort: number;
}

/** Serves reviews, and has the API server ask for them; where there is no API server, undefined. @throws MeshError AMB0815 */
export async function startWebhook(role: Role, { server }: Pick<Signing, "server">): Promise<WebhookPart | undefined> {
  const { api, config, self, around, readiness, metrics, signal } = role, log = role.log.child("webhook");
  if (api === undefined) return undefined;
  const address = listenOn(config.httpsAddress, HTTPS_PORT, around);
  const rules = readTlsRules(config), ready = () => readiness.ready;
  const webhook = new WebhookServer({ address, tls: server.now, rules, ready, metrics, log });
  const httpsPort = await webhook.listen();
  const name = self.revision === "" || self.revision === "default" ? "istiod" : `istiod-${self.revision}`;
  const registration = new WebhookRegistration({
    api,
    service: { namespace: self.namespace, name },
    revision: self.revision,
    rootsPem: () => server.distributedRootsPem,
    log,
  });
  server.subscribe((tls) => {
    webhook.present(tls);
    registration.touch();
  });
  const close = async () => {
    await registration.run(signal);
    await webhook.close();
  };
  return { httpsPort, stopped: close() };
}
