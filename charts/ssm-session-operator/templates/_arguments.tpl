{{/*
The arguments of one process, as a list in YAML, of (list root component). What the chart sets itself is refused in
extraArgs, since the program takes an option once.
*/}}
{{- define "ssm.arguments" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component.key -}}
{{- $arguments := list $component.name
    (printf "--namespace=%s" $root.Release.Namespace)
    (printf "--controller-name=%s" $root.Values.controllerName)
    (printf "--log-format=%s" $root.Values.log.format)
    (printf "--log-filter=%s" $root.Values.log.filter)
    "--admin-address=[::]:8080"
    (printf "--shutdown-deadline=%ds" (sub (int $values.terminationGracePeriodSeconds) 15)) -}}
{{- with $root.Values.tracing -}}
{{- if .otlpEndpoint -}}
{{- $arguments = concat $arguments (list
    (printf "--otlp-endpoint=%s" .otlpEndpoint)
    (printf "--otlp-sampling=%v" .sampling)) -}}
{{- end -}}
{{- end -}}
{{- if $component.controls -}}
{{- range $root.Values.watchNamespaces -}}
{{- $arguments = append $arguments (printf "--watch-namespace=%s" .) -}}
{{- end -}}
{{- end -}}
{{- if $component.relays -}}
{{- with $root.Values.listeners -}}
{{- if gt (int .ports.first) (int .ports.last) -}}
{{- fail (printf "listeners.ports: first (%d) is above last (%d)" (int .ports.first) (int .ports.last)) -}}
{{- end -}}
{{- if and (le (int .ports.first) 8080) (ge (int .ports.last) 8080) -}}
{{- fail "listeners.ports: 8080 is for probes and metrics" -}}
{{- end -}}
{{- $arguments = concat $arguments (list
    (printf "--port-range=%d-%d" (int .ports.first) (int .ports.last))
    (printf "--capacity=%d" (int .capacity))
    (printf "--connections-max=%d" (int .connectionsMax))) -}}
{{- end -}}
{{- end -}}
{{- $instead := dict
    "--namespace" "the release's namespace"
    "--controller-name" "controllerName"
    "--log-format" "log.format"
    "--log-filter" "log.filter"
    "--otlp-endpoint" "tracing.otlpEndpoint"
    "--otlp-sampling" "tracing.sampling"
    "--admin-address" "nothing: probes and metrics are on port 8080"
    "--shutdown-deadline" (printf "%s.terminationGracePeriodSeconds" $component.key)
    "--watch-namespace" "watchNamespaces"
    "--port-range" "listeners.ports"
    "--capacity" "listeners.capacity"
    "--connections-max" "listeners.connectionsMax"
    "--relay-name" "nothing: a relay is named after its pod"
    "--advertise-address" "nothing: a relay is reached at its pod's addresses"
    "--listen-address" "nothing: a relay listens on its pod's addresses"
    "--insecure-stream-urls" "nothing: it is for tests, and lets bytes pass without TLS" -}}
{{- range concat $root.Values.extraArgs $values.extraArgs -}}
{{- $option := index (splitList "=" .) 0 -}}
{{- if hasKey $instead $option -}}
{{- fail (printf "extraArgs: %s is set by %s" $option (index $instead $option)) -}}
{{- end -}}
{{- end -}}
{{- concat $arguments $root.Values.extraArgs $values.extraArgs | toYaml -}}
{{- end }}

{{/*
Refuses, of (list root component-key), variables that the chart or an argument sets already: of two with one name the last
would count, or neither.
*/}}
{{- define "ssm.refuseOwnEnv" -}}
{{- $values := (index . 0).Values -}}
{{- $key := index . 1 -}}
{{- $instead := dict
    "POD_NAME" "nothing: a relay is named after its pod"
    "POD_IPS" "nothing: a relay is reached at its pod's addresses"
    "POD_NAMESPACE" "the release's namespace"
    "CONTROLLER_NAME" "controllerName"
    "RUST_LOG" "log.filter"
    "OTEL_EXPORTER_OTLP_ENDPOINT" "tracing.otlpEndpoint"
    "AWS_ROLE_SESSION_NAME" "aws.roleSessionName" -}}
{{- if or $values.customCA.configMap $values.customCA.secret -}}
{{- $instead = merge $instead (dict "SSL_CERT_FILE" "customCA" "SSL_CERT_DIR" "customCA") -}}
{{- end -}}
{{- if or $values.proxy.url $values.proxy.secret -}}
{{- range list "HTTPS_PROXY" "https_proxy" -}}
{{- $instead = set $instead . "proxy.url or proxy.secret" -}}
{{- end -}}
{{- range list "NO_PROXY" "no_proxy" -}}
{{- $instead = set $instead . "proxy.noProxy" -}}
{{- end -}}
{{- end -}}
{{- range (index $values $key).env -}}
{{- if hasKey $instead .name -}}
{{- fail (printf "%s.env: %s is set by %s" $key .name (get $instead .name)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The arguments of the drain, which takes none of the options of processes. */}}
{{- define "ssm.arguments.drain" -}}
{{- list "drain"
    (printf "--namespace=%s" .Release.Namespace)
    (printf "--controller-name=%s" .Values.controllerName)
    (printf "--log-format=%s" .Values.log.format)
    (printf "--log-filter=%s" .Values.log.filter)
    (printf "--timeout=%ds" (int .Values.drain.timeoutSeconds)) | toYaml -}}
{{- end }}
