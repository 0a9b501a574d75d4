{{- /*
A pod of the operator's image and account that does one thing:
(dict "root" $ "component" "operator" "values" .Values.operator "name" "await" "command" (list ...)).
*/}}
{{- define "sekali.errandSpec" -}}
{{- $account := printf "%s-operator" (include "sekali.fullname" .root) }}
{{- include "sekali.podSettings" (merge (dict "account" $account "token" true) .) }}
{{ include "sekali.podSecurity" (dict "user" 65532) }}
restartPolicy: Never
containers:
  - name: {{ .name }}
    {{- include "sekali.ownImage" .root | nindent 4 }}
    command: [sekali-operator]
    args: {{ toJson .command }}
    env:
      - name: NAMESPACE
        valueFrom:
          fieldRef: { fieldPath: metadata.namespace }
    resources:
      {{- toYaml .values.resources | nindent 6 }}
    {{- include "sekali.containerSecurity" .root | nindent 4 }}
{{- end }}
