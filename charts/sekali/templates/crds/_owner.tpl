{{- /*
Whether this release installs the definitions. They are the cluster's, and Helm lets one release
alone have them: where another has made them, or someone without Helm, they stay as they are.
*/}}
{{- define "sekali.installsCrds" -}}
{{- $ours := .Values.crds.install -}}
{{- if $ours -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "pipelines.sekali.dev" -}}
{{- $of := .metadata.annotations | default dict -}}
{{- $owner := printf "%s/%s" (get $of "meta.helm.sh/release-namespace") (get $of "meta.helm.sh/release-name") -}}
{{- $ours = eq $owner (printf "%s/%s" $.Release.Namespace $.Release.Name) -}}
{{- end -}}
{{- end -}}
{{- if $ours }}true{{ end -}}
{{- end }}
