#!/bin/bash
# A CNI plugin that routes, as Calico's does: host-local gives the address; the pod reaches everybody by a gateway that is
# nobody's, for which the node answers by proxy ARP; the node has a route to each pod, and no address at its end.
set -euo pipefail
config=$(cat)
host=veth$(echo -n "$CNI_CONTAINERID" | sha256sum | cut -c1-10)
ipam() { "${CNI_PATH%%:*}/host-local" <<<"$config"; }
inside() { nsenter --net="$CNI_NETNS" "$@"; }
case $CNI_COMMAND in
  VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
  CHECK) ;;
  DEL)
    ip link del "$host" 2>/dev/null || true
    ipam
    ;;
  ADD)
    given=$(ipam)
    address=$(grep -oE '"address": *"[0-9.]+' <<<"$given" | grep -oE '[0-9.]+$')
    ip link add "$host" type veth peer name "$CNI_IFNAME" netns "$CNI_NETNS"
    echo 1 >"/proc/sys/net/ipv4/conf/$host/proxy_arp"
    echo 0 >"/proc/sys/net/ipv4/neigh/$host/proxy_delay"
    ip link set "$host" up
    # An address of IPv6 that comes a second after the pod would look like somebody's doing.
    inside sh -c "echo 0 >/proc/sys/net/ipv6/conf/$CNI_IFNAME/accept_dad"
    inside ip addr add "$address/32" dev "$CNI_IFNAME"
    inside ip link set "$CNI_IFNAME" up
    inside ip route add 169.254.1.1 dev "$CNI_IFNAME" scope link
    inside ip route add default via 169.254.1.1 dev "$CNI_IFNAME"
    ip route add "$address/32" dev "$host" scope link
    cat <<RESULT
{"cniVersion":"1.0.0","interfaces":[{"name":"$host"},{"name":"$CNI_IFNAME","sandbox":"$CNI_NETNS"}],
 "ips":[{"address":"$address/32","interface":1}],"routes":[{"dst":"0.0.0.0/0"}]}
RESULT
    ;;
esac
