{{- define "gvList" -}}
# API reference

Generated from `api/v1alpha1` by `make generate`. `kubectl explain webhooksubscriptions.spec` says the same.
{{ range . }}
{{ template "gvDetails" . }}
{{- end }}
{{- end -}}
