{{/* Names are fixed: the manager knows its roles, its lease and its dispatchers' roles by them. */}}
{{- define "eventflow.labels" -}}
app.kubernetes.io/part-of: eventflow
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "eventflow.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "eventflow.selector" -}}
app.kubernetes.io/name: eventflow
app.kubernetes.io/component: manager
{{- end }}

{{/* The class that pods are given; one that is made here is called eventflow if it has no other name. */}}
{{- define "eventflow.priorityClass" -}}
{{- .Values.priorityClass.name | default (ternary "eventflow" "" .Values.priorityClass.create) -}}
{{- end }}

{{/* Whether the API server takes the custom resource of this chart yet. */}}
{{- define "eventflow.dispatcherKnown" -}}
{{- if .Capabilities.APIVersions.Has "webhooks.clinikapi.com/v1alpha1/WebhookDispatcher" }}yes{{ end -}}
{{- end }}
