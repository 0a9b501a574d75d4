{{- /*
Where traces go: for gateways, workers and publishers, which make spans; the operator makes none.
Nothing at all without an endpoint.
*/}}

{{- define "sekali.tracing.env" -}}
{{- with .Values.tracing -}}
{{- if .endpoint -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol }}
{{- /* A share of 0 is one: it records what senders record, and nothing else. */}}
{{- if not (or (kindIs "invalid" .sampleRatio) (eq (toString .sampleRatio) "")) }}
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .sampleRatio | toString | quote }}
{{- end }}
{{- if .headers.existingSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef: { name: {{ .headers.existingSecret }}, key: {{ .headers.key }} }
{{- end }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* Egress to the collector: on the endpoint's port alone, to where the values say or anywhere. */}}
{{- define "sekali.tracing.egress" -}}
{{- if .Values.tracing.endpoint -}}
- ports:
    - { port: {{ include "sekali.tracing.port" .Values.tracing.endpoint }}, protocol: TCP }
  {{- with .Values.tracing.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end }}

{{- /* The port of an address such as http://collector:4318; the scheme's own without one. */}}
{{- define "sekali.tracing.port" -}}
{{- $port := regexFind ":[0-9]+$" (regexFind "^https?://[^/]+" .) | trimPrefix ":" -}}
{{- $port | default (hasPrefix "https:" . | ternary "443" "80") -}}
{{- end }}
