{{- /*
A pod of the publisher, which sends a load with a known right answer through the Service,
reads it back and says in its termination message what came of it:
(dict "root" $ "component" "publisher" "values" .Values.publisher "settings" (dict "events" 1000)).
Without settings it is a template for the operator, which adds them.
*/}}
{{- define "sekali.publisherSpec" -}}
{{- include "sekali.podSettings" . }}
{{ include "sekali.podSecurity" (dict "user" 65532) }}
restartPolicy: Never
terminationGracePeriodSeconds: 45
containers:
  - name: publisher
    {{- include "sekali.ownImage" .root | nindent 4 }}
    command: [sekali-publisher]
    {{- if or .settings .values.apiKey.existingSecret }}
    args:
      {{- if .settings }}
      - --target-url=http://{{ include "sekali.fullname" .root }}:{{ .root.Values.aggregator.service.port }}
      - --report=/dev/termination-log
      - --verify
      - --clean
      {{- range $name, $value := .settings }}
      - {{ printf "--%s=%s" $name (include "sekali.text" $value) | quote }}
      {{- end }}
      {{- end }}
      {{- if .values.apiKey.existingSecret }}
      - --api-key-file=/run/secrets/api-key/key
      {{- end }}
    {{- end }}
    {{- with include "sekali.tracing.env" .root }}
    env:
      {{- . | nindent 6 }}
    {{- end }}
    terminationMessagePolicy: File
    resources:
      {{- toYaml .values.resources | nindent 6 }}
    {{- include "sekali.containerSecurity" .root | nindent 4 }}
    {{- if .values.apiKey.existingSecret }}
    volumeMounts:
      - { name: api-key, mountPath: /run/secrets/api-key, readOnly: true }
    {{- end }}
{{- with .values.apiKey.existingSecret }}
volumes:
  - name: api-key
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items:
        - { key: {{ $.values.apiKey.key }}, path: key }
{{- end }}
{{- end }}
