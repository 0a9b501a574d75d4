{{- /* What Redis reads when it starts. It restarts with what is said here, and with nothing else. */}}
{{- define "sekali.redisConfig" -}}
{{- with .Values.redis -}}
redis.conf: |
  dir /data
  # What is acknowledged is on disk: the promise rests on these two.
  appendonly yes
  appendfsync {{ .appendfsync }}
  # The append-only file is all that is needed; with the default a busy Redis would write
  # it anew every two seconds.
  save ""
  auto-aof-rewrite-min-size 1gb
  # The bound of the queue. A full Redis refuses events, and never drops one.
  maxmemory {{ include "sekali.bytes" .maxmemory }}
  maxmemory-policy noeviction
  {{- range $name, $value := .settings }}
  {{ $name }} {{ include "sekali.text" $value }}
  {{- end }}
start: |
  set -e
  {{- include "sekali.lockVolume" "/data" | nindent 2 }}
  # Redis takes the password's hash, so that any character will do, and neither its
  # configuration nor its command line shows it.
  hash=$(printf %s "$(cat /run/secrets/redis/password)" | sha256sum | cut -c 1-64)
  exec {{ .server }} /etc/redis/redis.conf --user default on "#$hash" '~*' '&*' +@all
ping: |
  REDISCLI_AUTH=$(cat /run/secrets/redis/password)
  export REDISCLI_AUTH
  [ "$(redis-cli ping)" = PONG ]
{{- end }}
{{- end }}
