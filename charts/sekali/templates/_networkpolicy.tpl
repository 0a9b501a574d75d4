{{- /* Parts of NetworkPolicies. What is not allowed in one of them times out. */}}

{{- define "sekali.policyHead" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "sekali.component" . }}
  labels:
    {{- include "sekali.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "sekali.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end }}

{{- /* A peer: pods of a component of this release. */}}
{{- define "sekali.peer" -}}
- podSelector:
    matchLabels:
      {{- include "sekali.selector" . | nindent 6 }}
{{- end }}

{{- /* Ingress to the admin port: from where the values say, else from any pod if they have it scraped. */}}
{{- define "sekali.metricsIngress" -}}
{{- $from := .Values.networkPolicy.metricsFrom }}
{{- if and (not $from) (or .Values.metrics.podMonitor.enabled .Values.metrics.scrapeAnnotations) }}
{{- $from = list (dict "namespaceSelector" dict) }}
{{- end }}
{{- with $from }}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - { port: admin, protocol: TCP }
{{- end }}
{{- end }}

{{- define "sekali.dnsEgress" -}}
- ports:
    - { port: 53, protocol: UDP }
    - { port: 53, protocol: TCP }
  {{- with .Values.networkPolicy.dnsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* Egress of gateways and workers: names, Redis, PostgreSQL, a collector of traces. */}}
{{- define "sekali.serverEgress" -}}
{{- include "sekali.dnsEgress" . }}
{{- if .Values.redis.enabled }}
- to:
    {{- include "sekali.peer" (dict "root" . "component" "redis") | nindent 4 }}
  ports:
    - { port: 6379, protocol: TCP }
{{- else }}
- ports:
    - { port: {{ .Values.externalRedis.port }}, protocol: TCP }
  {{- with .Values.externalRedis.networkPolicyTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- if .Values.postgresql.enabled }}
- to:
    {{- include "sekali.peer" (dict "root" . "component" "postgresql") | nindent 4 }}
  ports:
    - { port: 5432, protocol: TCP }
{{- else }}
- ports:
    - { port: {{ .Values.externalPostgresql.port }}, protocol: TCP }
  {{- with .Values.externalPostgresql.networkPolicyTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with include "sekali.tracing.egress" . }}
{{ . }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Ingress to one of the servers: gateways and workers, on its port. */}}
{{- define "sekali.serverIngress" -}}
- from:
    {{- include "sekali.peer" (dict "root" .root "component" "aggregator") | nindent 4 }}
    {{- include "sekali.peer" (dict "root" .root "component" "worker") | nindent 4 }}
  ports:
    - { port: {{ .port }}, protocol: TCP }
{{- end }}
