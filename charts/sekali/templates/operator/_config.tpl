{{- /*
What the operator reads when it starts. The Pipeline is in it, and not among the release's
objects, since Helm can't install a definition and a resource of it in one step.
*/}}
{{- define "sekali.operatorConfig" -}}
{{- $operator := dict "root" . "component" "operator" }}
{{- $publisher := dict "root" . "component" "publisher" "values" .Values.publisher "settings" dict }}
pipeline.yaml: |
  apiVersion: sekali.dev/v1alpha1
  kind: Pipeline
  metadata:
    name: {{ include "sekali.fullname" . }}
    labels:
      {{- include "sekali.selector" $operator | nindent 6 }}
      app.kubernetes.io/part-of: sekali
  spec:
    instance: {{ .Release.Name }}
    gateway:
      service: {{ include "sekali.fullname" . }}
      port: {{ .Values.aggregator.service.port }}
    workers:
      deployment: {{ include "sekali.component" (dict "root" . "component" "worker") }}
      min: {{ .Values.worker.replicas }}
      max: {{ include "sekali.maxWorkers" . }}
      targetLag: {{ .Values.operator.workers.targetLag }}
      quietPeriod: {{ .Values.operator.workers.quietPeriod }}
    paused: {{ .Values.operator.paused }}
publisher.yaml: |
  metadata:
    {{- include "sekali.podMetadata" $publisher | nindent 4 }}
  spec:
    {{- /* Written anew: in the YAML of whoever reads this 0440 is not octal. */}}
    {{- include "sekali.publisherSpec" $publisher | fromYaml | toYaml | nindent 4 }}
{{- end }}
