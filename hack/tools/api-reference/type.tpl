{{- define "type" -}}
{{- $type := . -}}
{{- if markdownShouldRenderType $type }}
### {{ $type.Name }}

{{ $type.Doc | trim }}
{{ if $type.References }}
Used by {{ range $i, $r := $type.SortedReferences }}{{ if $i }}, {{ end }}{{ markdownRenderTypeLink $r }}{{ end }}.
{{ end }}
{{- if or (index $type.Markers "kubebuilder:validation:XValidation") (index $type.Markers "kubebuilder:validation:ExactlyOneOf") }}
{{ range index $type.Markers "kubebuilder:validation:XValidation" }}- {{ .Message }}
{{ end }}
{{- range index $type.Markers "kubebuilder:validation:ExactlyOneOf" }}- exactly one must be set of: {{ join ", " . }}
{{ end }}
{{- end }}
{{- if $type.Members }}
| field | type | default | rules | meaning |
| --- | --- | --- | --- | --- |
{{ if $type.GVK -}}
| `apiVersion` | string | | `{{ $type.GVK.Group }}/{{ $type.GVK.Version }}` | |
| `kind` | string | | `{{ $type.GVK.Kind }}` | |
{{ end -}}
{{ range $type.Members -}}
| `{{ .Name }}` | {{ markdownRenderType .Type | replace "_" "\\_" }} | {{ template "default" . }} | {{ template "bounds" . }} | {{ if eq .Name "metadata" }}the standard object's metadata{{ else }}{{ .Doc | replace "\n" " " | markdownRenderFieldDoc }}{{ end }} |
{{ end -}}
{{ end -}}
{{- if $type.EnumValues }}
| value | meaning |
| --- | --- |
{{ range $type.EnumValues -}}
| `{{ .Name }}` | {{ .Doc | trim | replace "\n" " " | markdownRenderFieldDoc }} |
{{ end -}}
{{ end -}}
{{ end -}}
{{- end -}}

{{- define "default" -}}
{{- if .Default }}{{ if not (contains "{" .Default) }}`{{ .Default }}`{{ end }}{{ end -}}
{{- end -}}
