{{/* Names, labels and the image. */}}

{{- define "ssm.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end }}

{{/* 40 characters, so that a label takes it with every ending. */}}
{{- define "ssm.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/*
What begins the names of objects outside of the release's namespace, of which the same release name in another namespace
has its own. No namespace has a dot, so that no two releases make one name.
*/}}
{{- define "ssm.clusterName" -}}
{{- printf "%s.%s" .Release.Namespace (include "ssm.fullname" .) -}}
{{- end }}

{{/* The components that run: their Deployment's suffix, values and what each process does. */}}
{{- define "ssm.components" -}}
{{- if eq .Values.mode "all-in-one" -}}
- {key: allInOne, name: all-in-one, controls: true, relays: true}
{{- else -}}
- {key: controller, name: controller, controls: true, relays: false}
- {key: relay, name: relay, controls: false, relays: true}
{{- end -}}
{{- end }}

{{/* The selector of all our pods; with a component added, of one Deployment's. */}}
{{- define "ssm.selector" -}}
app.kubernetes.io/name: {{ include "ssm.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ssm.labels" -}}
{{ include "ssm.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ssm-session-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of (list root labels): those of every object, and these besides, which may be other than the common ones. */}}
{{- define "ssm.labelsWith" -}}
{{- merge (deepCopy (index . 1)) (include "ssm.labels" (index . 0) | fromYaml) | toYaml -}}
{{- end }}

{{/* Labels and annotations of an object without any of its own, to be indented under `metadata`. */}}
{{- define "ssm.metadata" -}}
labels:
  {{- include "ssm.labels" . | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Of (list root component-key component-name): the name of its ServiceAccount. */}}
{{- define "ssm.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $account := (index $root.Values (index . 1)).serviceAccount -}}
{{- $account.name | default (printf "%s-%s" (include "ssm.fullname" $root) (index . 2)) -}}
{{- end }}

{{/* As (list root what): the user names of the ServiceAccounts that control or relay, as a list in JSON. */}}
{{- define "ssm.users" -}}
{{- $root := index . 0 -}}
{{- $what := index . 1 -}}
{{- $users := list -}}
{{- range include "ssm.components" $root | fromYamlArray -}}
{{- if index . $what -}}
{{- $account := include "ssm.serviceAccount" (list $root .key .name) -}}
{{- $users = append $users (printf "system:serviceaccount:%s:%s" $root.Release.Namespace $account) -}}
{{- end -}}
{{- end -}}
{{- $users | toJson -}}
{{- end }}

{{/* The image's digest; empty where its tag counts. A released chart says which digest the image of its version has. */}}
{{- define "ssm.digest" -}}
{{- $released := index .Chart.Annotations "ssm-operator.dev/image-digest" -}}
{{- .Values.image.digest | default (ternary "" $released (ne .Values.image.tag "")) -}}
{{- end }}

{{- define "ssm.image" -}}
{{- $digest := include "ssm.digest" . -}}
{{- with .Values.image -}}
{{- if $digest -}}
{{ .repository }}@{{ $digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What a digest names never changes, and a node that has it needs no registry. A tag can be moved. */}}
{{- define "ssm.pullPolicy" -}}
{{- .Values.image.pullPolicy | default (ternary "IfNotPresent" "Always" (ne (include "ssm.digest" .) "")) -}}
{{- end }}

{{/* The port of an HTTP URL, said or not. */}}
{{- define "ssm.portOf" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $port | default (ternary "443" "80" (eq $url.scheme "https")) -}}
{{- end }}
