{{- /* Parts of the two StatefulSets. */}}

{{- /* The claim of a server, unless there is one already or nothing is to be kept. */}}
{{- define "sekali.claimTemplates" -}}
{{- with .values.persistence }}
{{- if and .enabled (not .existingClaim) }}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: data
      labels:
        {{- include "sekali.selector" $ | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .storageClass }}
      storageClassName: {{ . | quote }}
      {{- end }}
      resources:
        requests:
          storage: {{ include "sekali.text" .size }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The volume itself where it comes from no claim template. */}}
{{- define "sekali.dataVolume" -}}
{{- with .values.persistence }}
{{- if .existingClaim }}
- name: data
  persistentVolumeClaim:
    claimName: {{ .existingClaim }}
{{- else if not .enabled }}
- name: data
  emptyDir: {}
{{- end }}
{{- end }}
{{- end }}

{{- /* The server's password as a file: (... "key" "redis-password"). */}}
{{- define "sekali.serverPassword" -}}
- name: password
  secret:
    secretName: {{ include "sekali.secretName" .root }}
    defaultMode: 0440
    items:
      - { key: {{ .key }}, path: password }
{{- end }}

{{- define "sekali.serverMetadata" -}}
name: {{ include "sekali.component" . }}
labels:
  {{- include "sekali.labels" . | nindent 2 }}
{{- end }}

{{- /*
Shell: takes the volume, or waits until the server before has ended. A pod that is deleted by
force is replaced while its server still runs; two on one volume lose what one of them has
acknowledged. The lock belongs to all processes of the server, so it ends with the last.
*/}}
{{- define "sekali.lockVolume" -}}
exec 9>>{{ . }}/lock
flock --nonblock 9 || {
  echo 'waiting for the server before this one to end' >&2
  flock 9
}
{{- end }}
