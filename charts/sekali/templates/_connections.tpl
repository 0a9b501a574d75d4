{{- /*
How gateways and workers find Redis and PostgreSQL. Addresses are no secrets; passwords are
files, so that any character will do and no environment holds one.
*/}}

{{- define "sekali.connections.env" -}}
- name: DATABASE_URL
  value: {{ include "sekali.databaseUrl" . | quote }}
{{- if include "sekali.databaseSecret" . }}
- name: DATABASE_PASSWORD_FILE
  value: /run/secrets/sekali/postgresql-password
{{- end }}
- name: BROKER_URL
  value: {{ include "sekali.brokerUrl" . | quote }}
{{- if include "sekali.brokerSecret" . }}
- name: BROKER_PASSWORD_FILE
  value: /run/secrets/sekali/redis-password
{{- end }}
- name: BROKER_PREFIX
  value: {{ .Values.brokerPrefix | quote }}
{{- if .Values.certificates.existingSecret }}
- name: SSL_CERT_DIR
  value: /run/secrets/certificates
{{- end }}
{{- end }}

{{- define "sekali.connections.mounts" -}}
- name: passwords
  mountPath: /run/secrets/sekali
  readOnly: true
{{- if .Values.certificates.existingSecret }}
- name: certificates
  mountPath: /run/secrets/certificates
  readOnly: true
{{- end }}
{{- end }}

{{- define "sekali.connections.volumes" -}}
- name: passwords
  projected:
    defaultMode: 0440
    sources:
      {{- with include "sekali.databaseSecret" . }}
      - secret:
          name: {{ . }}
          items:
            - key: {{ include "sekali.databaseSecretKey" $ }}
              path: postgresql-password
      {{- end }}
      {{- with include "sekali.brokerSecret" . }}
      - secret:
          name: {{ . }}
          items:
            - key: {{ include "sekali.brokerSecretKey" $ }}
              path: redis-password
      {{- end }}
{{- with .Values.certificates.existingSecret }}
- name: certificates
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - key: {{ $.Values.certificates.key }}
        path: ca.crt
{{- end }}
{{- end }}

{{- define "sekali.databaseUrl" -}}
{{- if .Values.postgresql.enabled -}}
postgres://sekali@{{ include "sekali.component" (dict "root" . "component" "postgresql") }}:5432/sekali
{{- else -}}
{{- with .Values.externalPostgresql -}}
postgres://{{ .user | urlquery | replace "+" "%20" }}@{{ .host }}:{{ .port }}/{{ .database | urlquery | replace "+" "%20" }}?sslmode={{ .sslMode }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sekali.databaseSecret" -}}
{{- if .Values.postgresql.enabled -}}
{{- include "sekali.secretName" . -}}
{{- else -}}
{{- .Values.externalPostgresql.existingSecret -}}
{{- end -}}
{{- end }}

{{- define "sekali.databaseSecretKey" -}}
{{- if .Values.postgresql.enabled }}postgresql-password{{ else }}{{ .Values.externalPostgresql.passwordKey }}{{ end -}}
{{- end }}

{{- /* The most connections to PostgreSQL that a gateway or a worker opens, from its values. */}}
{{- define "sekali.databaseConnections" -}}
{{- $told := regexFind "--database-connections[= ][0-9]+" (join " " .extraArgs) | regexFind "[0-9]+$" -}}
{{- range .extraEnv -}}
{{- if and (not $told) (eq .name "DATABASE_CONNECTIONS") }}{{ $told = .value }}{{ end -}}
{{- end -}}
{{- $told | default "8" -}}
{{- end }}

{{- /* A queue as one names it: its server, the database in it, and what its keys begin with. */}}
{{- define "sekali.queue" -}}
{{- regexReplaceAll "^rediss?://([^@]*@)?" .BROKER_URL "" }}/{{ .BROKER_PREFIX -}}
{{- end }}

{{- define "sekali.brokerUrl" -}}
{{- if .Values.redis.enabled -}}
redis://{{ include "sekali.component" (dict "root" . "component" "redis") }}:6379
{{- else -}}
{{- with .Values.externalRedis -}}
{{ .tls | ternary "rediss" "redis" }}://{{ with .user }}{{ . | urlquery | replace "+" "%20" }}@{{ end }}{{ .host }}:{{ .port }}/{{ int64 .database }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sekali.brokerSecret" -}}
{{- if .Values.redis.enabled -}}
{{- include "sekali.secretName" . -}}
{{- else -}}
{{- .Values.externalRedis.existingSecret -}}
{{- end -}}
{{- end }}

{{- define "sekali.brokerSecretKey" -}}
{{- if .Values.redis.enabled }}redis-password{{ else }}{{ .Values.externalRedis.passwordKey }}{{ end -}}
{{- end }}

{{- /* The Secret with the passwords of the built-in servers. */}}
{{- define "sekali.secretName" -}}
{{- .Values.auth.existingSecret | default (include "sekali.fullname" .) -}}
{{- end }}

{{- /*
Whether the chart makes it. An existing one is never touched.
*/}}
{{- define "sekali.makesSecret" -}}
{{- if and (not .Values.auth.existingSecret) (or .Values.redis.enabled .Values.postgresql.enabled) }}yes{{ end -}}
{{- end }}

{{- /*
Its data as YAML: what the values say, else what the cluster has, else random. Drawn once a
rendering, since two looks at a random password would see two.
*/}}
{{- define "sekali.passwords" -}}
{{- if not (hasKey .Values.auth "drawn") -}}
{{- $found := (lookup "v1" "Secret" .Release.Namespace (include "sekali.secretName" .)).data | default dict -}}
{{- $drawn := dict -}}
{{- range $key, $value := dict "redis-password" .Values.auth.redisPassword "postgresql-password" .Values.auth.postgresqlPassword -}}
{{- $_ := set $drawn $key ($value | b64enc | default (get $found $key) | default (randAlphaNum 32 | b64enc)) -}}
{{- end -}}
{{- $_ := set .Values.auth "drawn" $drawn -}}
{{- end -}}
{{- toYaml .Values.auth.drawn -}}
{{- end }}
