{{- define "bounds" -}}
{{- $v := "kubebuilder:validation:" -}}
{{- $i := "kubebuilder:validation:items:" -}}
{{- $b := list -}}
{{- if index .Markers "required" }}{{ $b = append $b "set" }}{{ end -}}
{{- range index .Markers (print $v "Minimum") }}{{ $b = append $b (printf "at least %.0f" .) }}{{ end -}}
{{- range index .Markers (print $v "Maximum") }}{{ $b = append $b (printf "at most %.0f" .) }}{{ end -}}
{{- range index .Markers (print $v "MaxLength") }}{{ $b = append $b (printf "at most %d characters" .) }}{{ end -}}
{{- range index .Markers (print $v "MaxItems") }}{{ $b = append $b (printf "at most %d items" .) }}{{ end -}}
{{- range index .Markers (print $v "XValidation") }}{{ $b = append $b .Message }}{{ end -}}
{{- range index .Markers (print $i "MaxLength") }}{{ $b = append $b (printf "each at most %d characters" .) }}{{ end -}}
{{- range index .Markers (print $i "XValidation") }}{{ $b = append $b (print "each " .Message) }}{{ end -}}
{{- with .Type.Markers }}{{ range index . (print $v "Enum") }}{{ $b = append $b (join " or " .) }}{{ end }}{{ end -}}
{{- join "; " $b | markdownRenderFieldDoc -}}
{{- end -}}
