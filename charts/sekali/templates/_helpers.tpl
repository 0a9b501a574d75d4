{{- /*
What every template shares. Those that belong to one component take
(dict "root" $ "component" "worker" "values" .Values.worker).
*/}}

{{- /* The release's name, which all names begin with; alone, it is the gateway's Service. */}}
{{- define "sekali.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "sekali.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sekali.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "sekali.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- /* The name of a component's objects. */}}
{{- define "sekali.component" -}}
{{- printf "%s-%s" (include "sekali.fullname" .root) .component -}}
{{- end }}

{{- /* The labels of all objects. */}}
{{- define "sekali.labels" -}}
{{ include "sekali.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sekali
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* What selects a component's pods. Frozen: a selector can't be changed by an upgrade. */}}
{{- define "sekali.selector" -}}
app.kubernetes.io/name: {{ include "sekali.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* A reference to an image: (dict "root" $ "image" .Values.redis.image "tag" "default tag"). */}}
{{- define "sekali.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := .image.repository -}}
{{- if $registry }}{{ $name = printf "%s/%s" $registry $name }}{{ end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (include "sekali.text" (.image.tag | default .tag)) -}}
{{- end -}}
{{- end }}

{{- /* The image of Sekali's own programs. */}}
{{- define "sekali.ownImage" -}}
image: {{ include "sekali.image" (dict "root" . "image" .Values.image "tag" .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- /* What any container may do. */}}
{{- define "sekali.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- /* Who a pod runs as: (dict "user" 65532). Files of volumes become that group's. */}}
{{- define "sekali.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ include "sekali.text" .user }}
  runAsGroup: {{ include "sekali.text" .user }}
  fsGroup: {{ include "sekali.text" .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- /*
A pod's labels and annotations; with "scraped" true those that Prometheus goes by as well. No
version among them, or each release of the chart would restart Redis and PostgreSQL. With
"passwords", a list of keys of the Secret, a new one of these restarts whoever read it when it
started; of their hash, which anyone who sees pods sees, too little is shown to try passwords
against.
*/}}
{{- define "sekali.podMetadata" -}}
labels:
  {{- include "sekali.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: sekali
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- if and .passwords (include "sekali.makesSecret" .root) }}
  {{- $read := include "sekali.passwords" .root | fromYaml }}
  {{- range $key, $_ := $read }}
  {{- if not (has $key $.passwords) }}{{ $read = omit $read $key }}{{ end }}
  {{- end }}
  checksum/passwords: {{ toJson $read | sha256sum | trunc 6 | quote }}
  {{- end }}
  {{- if and .scraped .root.Values.metrics.scrapeAnnotations }}
  prometheus.io/scrape: "true"
  prometheus.io/port: "9090"
  prometheus.io/path: /metrics
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* How many workers; nothing where the field is somebody else's, who scales them. */}}
{{- define "sekali.workerReplicas" -}}
{{- if not .Values.operator.enabled }}{{ .Values.worker.replicas }}{{ end -}}
{{- end }}

{{- /* The most workers that there can be. */}}
{{- define "sekali.maxWorkers" -}}
{{- if .Values.operator.enabled }}{{ max .Values.worker.replicas .Values.operator.workers.max }}{{ else }}{{ .Values.worker.replicas }}{{ end -}}
{{- end }}

{{- /* Where a pod runs and with which account; all that is the same for every component. */}}
{{- define "sekali.podSettings" -}}
serviceAccountName: {{ .account | default (include "sekali.fullname" .root) }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Replicas stand on different nodes where there are several. */}}
{{- define "sekali.spread" -}}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "sekali.selector" . | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{- /* The probes of Sekali's own services, which answer on their admin port from the start. */}}
{{- define "sekali.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: { path: /readyz, port: {{ .port }} }
  periodSeconds: 3
  timeoutSeconds: 3
{{- end }}

{{- /* How one of Sekali's own services ends: first the endpoints forget the pod, then it drains. */}}
{{- define "sekali.drain" -}}
- name: DRAIN_DELAY_MS
  value: {{ mul 1000 .values.drain.delaySeconds | quote }}
- name: DRAIN_DEADLINE_MS
  value: {{ mul 1000 .values.drain.deadlineSeconds | quote }}
{{- end }}

{{- /* A PodDisruptionBudget, if there is more than one replica: (... "replicas" 2). */}}
{{- define "sekali.disruptionBudget" -}}
{{- if gt (int .replicas) 1 }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "sekali.component" . }}
  labels:
    {{- include "sekali.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "sekali.selector" . | nindent 6 }}
{{- end }}
{{- end }}

{{- /*
A value as it was written. A number of a values file is a float to Helm, which would print
2000000 as 2e+06.
*/}}
{{- define "sekali.text" -}}
{{- kindIs "string" . | ternary . (toJson .) -}}
{{- end }}

{{- /* A quantity such as 256Mi, 1.5Gi or 1073741824 in bytes. */}}
{{- define "sekali.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $text := include "sekali.text" . -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- if or (not $number) (not (hasKey $units $unit)) }}{{ fail (printf "%s is no quantity such as 256Mi or 2Gi" $text) }}{{ end -}}
{{- mulf $number (get $units $unit) | int64 -}}
{{- end }}
