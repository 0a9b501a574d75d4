{{- /*
Values that the schema can't tell are wrong: each is refused with a sentence that says what to
change, rather than found out by a pod.
*/}}
{{- define "sekali.checks" -}}
{{- include "sekali.checks.servers" . -}}
{{- include "sekali.checks.queue" . -}}
{{- include "sekali.checks.durability" . -}}
{{- include "sekali.checks.sizes" . -}}
{{- include "sekali.checks.drain" . -}}
{{- include "sekali.checks.metrics" . -}}
{{- include "sekali.checks.tracing" . -}}
{{- end }}

{{- define "sekali.checks.servers" -}}
{{- range $server, $external := dict "redis" "externalRedis" "postgresql" "externalPostgresql" -}}
{{- $enabled := (get $.Values $server).enabled -}}
{{- $host := (get $.Values $external).host -}}
{{- if and $enabled $host -}}
{{- fail (printf "%s.host is set, and %s.enabled is true: set it to false to use what is there already, or leave the host empty" $external $server) -}}
{{- end -}}
{{- if not (or $enabled $host) -}}
{{- fail (printf "%s.enabled is false: say in %s.host where there is one" $server $external) -}}
{{- end -}}
{{- if and $host (regexMatch "[/@:?# ]" $host) -}}
{{- fail (printf "%s.host is a name or an address alone, not %q; the port, the user and the password have values of their own" $external $host) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.externalRedis.user (not .Values.externalRedis.existingSecret) -}}
{{- fail "externalRedis.user needs externalRedis.existingSecret, which holds its password" -}}
{{- end -}}
{{- if and .Values.auth.existingSecret (or .Values.auth.redisPassword .Values.auth.postgresqlPassword) -}}
{{- fail "auth.existingSecret is set, so auth.redisPassword and auth.postgresqlPassword would not be used: leave them empty" -}}
{{- end -}}
{{- if and .Values.operator.enabled .Values.apiKeys.existingSecret (not .Values.publisher.apiKey.existingSecret) -}}
{{- fail "operator.enabled with apiKeys.existingSecret needs publisher.apiKey.existingSecret, a key of the scope admin, or it could not read the books: set it, or operator.enabled to false" -}}
{{- end -}}
{{- if and .Values.publisher.enabled .Values.apiKeys.existingSecret (not .Values.publisher.apiKey.existingSecret) -}}
{{- fail "publisher.enabled with apiKeys.existingSecret needs publisher.apiKey.existingSecret, or every request gets 401" -}}
{{- end -}}
{{- end }}

{{- /*
Workers of the new release read its queue alone: what still waits in another one would never be
stored, and nobody would be told.
*/}}
{{- define "sekali.checks.queue" -}}
{{- $name := include "sekali.component" (dict "root" . "component" "worker") -}}
{{- $place := dict "BROKER_URL" "" "BROKER_PREFIX" "" -}}
{{- $pod := ((lookup "apps/v1" "Deployment" .Release.Namespace $name).spec | default dict).template -}}
{{- range $container := ($pod.spec | default dict).containers -}}
{{- if eq $container.name "worker" -}}
{{- range $container.env }}{{ if and (hasKey $place .name) (not (get $place .name)) }}{{ $_ := set $place .name .value }}{{ end }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $old := include "sekali.queue" $place -}}
{{- $new := include "sekali.queue" (dict "BROKER_URL" (include "sekali.brokerUrl" .) "BROKER_PREFIX" .Values.brokerPrefix) -}}
{{- if and $place.BROKER_URL (ne $old $new) (ne $old (.Values.emptiedQueue | default "")) -}}
{{- fail (printf "this would move the queue from %s to %s, and what is still queued there would never be stored: empty it as docs/operations.md says (\"Moving the queue\"), and then set emptiedQueue to %s" $old $new $old) -}}
{{- end -}}
{{- end }}

{{- define "sekali.checks.durability" -}}
{{- $safe := dict "fsync" list "full_page_writes" list "synchronous_commit" (list "remote_write" "remote_apply") -}}
{{- range $name, $value := .Values.postgresql.settings -}}
{{- if and (hasKey $safe (lower $name)) (not (has (toString $value | lower) (concat (list "on" "true" "yes" "1") (get $safe (lower $name))))) -}}
{{- fail (printf "postgresql.settings.%s is %v: what was acknowledged could be lost; leave it on" $name $value) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.redis.settings -}}
{{- if has $name (list "appendonly" "appendfsync" "no-appendfsync-on-rewrite" "appenddirname" "appendfilename" "maxmemory" "maxmemory-policy" "requirepass" "user" "aclfile" "dir" "save" "include" "port" "bind" "replicaof" "slaveof") -}}
{{- fail (printf "redis.settings.%s is the chart's to set: see redis.appendfsync, redis.maxmemory and auth" $name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sekali.checks.sizes" -}}
{{- with .Values.redis -}}
{{- if .enabled -}}
{{- $maxmemory := include "sekali.bytes" .maxmemory | int64 -}}
{{- if lt $maxmemory 16777216 -}}
{{- fail (printf "redis.maxmemory is %s: less than 16Mi holds no queue" (include "sekali.text" .maxmemory)) -}}
{{- end -}}
{{- with (.resources.limits | default dict).memory -}}
{{- if lt (include "sekali.bytes" . | int64) (mul 2 $maxmemory) -}}
{{- fail (printf "redis.resources.limits.memory is %v: it has to be at least twice redis.maxmemory (%s), or Redis is killed while it writes its file anew" . (include "sekali.text" $.Values.redis.maxmemory)) -}}
{{- end -}}
{{- end -}}
{{- if and .persistence.enabled (not .persistence.existingClaim) -}}
{{- if lt (include "sekali.bytes" .persistence.size | int64) (add 2147483648 (mul 3 $maxmemory)) -}}
{{- fail (printf "redis.persistence.size is %s: it has to be at least three times redis.maxmemory (%s) and 2Gi more, or the disk fills up; how an installed release gets a larger volume stands in docs/operations.md (\"A larger queue\")" (include "sekali.text" .persistence.size) (include "sekali.text" .maxmemory)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.postgresql.enabled -}}
{{- $gateways := int .Values.aggregator.replicas -}}
{{- if .Values.aggregator.autoscaling.enabled }}{{ $gateways = int .Values.aggregator.autoscaling.max }}{{ end -}}
{{- /*
A gateway that drains counts as none to the Deployment, so in an upgrade all of them may be there
twice; of the workers, which end at once, one more is. 3 are kept for administrators.
*/ -}}
{{- $gateways = mul 2 $gateways (include "sekali.databaseConnections" .Values.aggregator | int) -}}
{{- $workers := mul (add 1 (include "sekali.maxWorkers" . | int)) (include "sekali.databaseConnections" .Values.worker | int) -}}
{{- $needed := add 3 $gateways $workers -}}
{{- $allowed := get .Values.postgresql.settings "max_connections" | default 100 | int -}}
{{- if gt $needed $allowed -}}
{{- fail (printf "aggregator and worker replicas need up to %d connections, and postgresql.settings.max_connections is %d: raise it, or run fewer" $needed $allowed) -}}
{{- end -}}
{{- end -}}
{{- with .Values.aggregator.autoscaling -}}
{{- if gt (int .min) (int .max) -}}
{{- fail (printf "aggregator.autoscaling.min (%v) is more than max (%v)" .min .max) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.aggregator.autoscaling.enabled (not (.Values.aggregator.resources.requests | default dict).cpu) -}}
{{- fail "aggregator.autoscaling needs aggregator.resources.requests.cpu, which it is a share of" -}}
{{- end -}}
{{- with .Values.aggregator.service -}}
{{- if and .nodePort (eq .type "ClusterIP") -}}
{{- fail "aggregator.service.nodePort needs aggregator.service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sekali.checks.drain" -}}
{{- range $name := list "aggregator" "worker" "operator" -}}
{{- with get $.Values $name -}}
{{- if ge (int .drain.delaySeconds) (int .drain.deadlineSeconds) -}}
{{- fail (printf "%s.drain.delaySeconds (%v) has to be less than deadlineSeconds (%v), which bounds it" $name .drain.delaySeconds .drain.deadlineSeconds) -}}
{{- end -}}
{{- $needed := add (.drain.preStopSeconds | default 0) .drain.deadlineSeconds -}}
{{- if le (int .terminationGracePeriodSeconds) (int $needed) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds is %v: it has to be more than its drain may take, %v seconds, or pods are killed in it" $name .terminationGracePeriodSeconds $needed) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sekali.checks.metrics" -}}
{{- with .Values.metrics -}}
{{- if and .scrapeAnnotations (or .podMonitor.enabled .serviceMonitor.enabled) -}}
{{- fail "metrics.scrapeAnnotations is true, and so is metrics.podMonitor.enabled or metrics.serviceMonitor.enabled: keep one of them, or what finds both counts every event twice" -}}
{{- end -}}
{{- if and .serviceMonitor.enabled $.Values.networkPolicy.enabled $.Values.networkPolicy.publishFrom (not $.Values.networkPolicy.metricsFrom) -}}
{{- fail "metrics.serviceMonitor.enabled has gateways scraped by the port that networkPolicy.publishFrom closes: say in networkPolicy.metricsFrom where Prometheus is (it could publish too), or use metrics.podMonitor" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sekali.checks.tracing" -}}
{{- with .Values.tracing.endpoint -}}
{{- if not (regexMatch "^https?://([^]/:@?#\\s[]+|\\[[0-9a-fA-F:.]+\\])(:[0-9]{1,5})?(/[^?#\\s]*)?$" .) -}}
{{- fail (printf "tracing.endpoint is %q: it has to be an address such as http://collector:4318; what the collector asks for goes into tracing.headers" .) -}}
{{- end -}}
{{- end -}}
{{- end }}
