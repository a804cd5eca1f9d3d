/**
 * What stays under the plugin's name after an uninstallation: a runtime that has the old configuration in memory, or in
 * what it keeps of each pod, goes on calling us, above all to tear pods down, and those must not hang on it (CNI-049).
 */

/** Where runtimes keep what they were told of each pod, by the CNI library's own default. */
const RESULTS = "/var/lib/cni/results";
/** Our type as it shows in base64, at each of the three places that it may begin at: so these files keep configurations. */
const TRACES = base64Traces('"istio-cni"');

/** The parts of a text's base64 that are the same whatever stands before and behind it. */
export function base64Traces(text: string): string[] {
  return [0, 1, 2].map((before) => {
    const encoded = new TextEncoder().encode("\0".repeat(before) + text).toBase64({ omitPadding: true });
    // What shares a character with the bytes before or behind varies with them.
    const from = Math.ceil(before * 8 / 6), whole = Math.floor((before + text.length) * 8 / 6);
    return encoded.slice(from, whole);
  });
}

/**
 * A script for `sh` alone. DEL, CHECK and all else succeed; ADD passes on what the plugin before us made. It removes
 * itself once no pod's record names us.
 */
export function tombstoneScript(results = RESULTS): string {
  const traces = TRACES.map((trace) => `*${trace}*`).join("|");
  return `#!/bin/sh
# Left behind by the uninstallation of the node agent: answers calls for pods of before, does nothing, and goes by itself.
if [ "$CNI_COMMAND" = VERSION ]; then
  echo '{"cniVersion":"1.0.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}'
elif [ "$CNI_COMMAND" = ADD ]; then
  # The object behind "prevResult", found by counting braces outside of strings.
  input=$(cat)
  case $input in *'"prevResult":'*) rest=\${input#*'"prevResult":'} ;; *) echo '{"cniVersion":"0.3.1"}'; exit 0 ;; esac
  depth=0 result=
  while [ -n "$rest" ]; do
    part=\${rest%%[\\"\\{\\}]*}
    result=$result$part rest=\${rest#"$part"}
    mark=\${rest%"\${rest#?}"} rest=\${rest#?}
    result=$result$mark
    case $mark in
      '{') depth=$((depth + 1)) ;;
      '}') depth=$((depth - 1)); [ $depth -gt 0 ] || break ;;
      '"') while :; do
          part=\${rest%%[\\"\\\\]*}
          result=$result$part rest=\${rest#"$part"}
          mark=\${rest%"\${rest#?}"} rest=\${rest#?}
          result=$result$mark
          [ "$mark" = \\\\ ] || break
          mark=\${rest%"\${rest#?}"} rest=\${rest#?}
          result=$result$mark
        done ;;
    esac
  done
  printf '%s\\n' "$result"
elif [ "$CNI_COMMAND" = DEL ]; then
  for file in "${results}"/*; do
    case \${file##*/} in *"$CNI_CONTAINERID"*|'*') continue ;; esac
    while IFS= read -r line || [ -n "$line" ]; do
      case $line in *istio-cni*|${traces}) exit 0 ;; esac
    done <"$file"
  done
  rm -f "$0"
fi
exit 0
`;
}
