{{/*
The pod of one process, of (list root component). With `drains` it is that of the Job which ends well or not, with the
ServiceAccount and all other settings of the component that controls.
*/}}
{{- define "ssm.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $root.Values $component.key -}}
{{- $drains := $component.drains | default false -}}
{{- $name := ternary "drain" $component.name $drains -}}
{{- $ca := $root.Values.customCA -}}
{{- if and $ca.configMap $ca.secret -}}
{{- fail "customCA: give configMap or secret, not both" -}}
{{- end -}}
{{- $proxy := $root.Values.proxy -}}
{{- if and $proxy.url $proxy.secret -}}
{{- fail "proxy: give url or secret, not both" -}}
{{- end -}}
{{- $hasCA := or $ca.configMap $ca.secret -}}
{{- include "ssm.refuseOwnEnv" (list $root $component.key) -}}
metadata:
  labels:
    {{- /* Not the chart's version, so that nothing is rolled for a change that does not concern it. */}}
    {{- include "ssm.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
    app.kubernetes.io/part-of: ssm-session-operator
    {{- with merge (deepCopy $values.podLabels) $root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "ssm.serviceAccount" (list $root $component.key $component.name) }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- if $drains }}
  restartPolicy: Never
  {{- end }}
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    {{- if not $root.Values.openshift }}
    runAsUser: 65532
    runAsGroup: 65532
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  containers:
  - name: {{ $name }}
    image: {{ include "ssm.image" $root | quote }}
    imagePullPolicy: {{ include "ssm.pullPolicy" $root }}
    args:
      {{- if $drains }}
      {{- include "ssm.arguments.drain" $root | nindent 6 }}
      {{- else }}
      {{- include "ssm.arguments" (list $root $component) | nindent 6 }}
      {{- end }}
    env:
    {{- if $component.relays }}
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: POD_IPS
      valueFrom:
        fieldRef:
          fieldPath: status.podIPs
    {{- end }}
    - name: AWS_ROLE_SESSION_NAME
      value: {{ $root.Values.aws.roleSessionName | quote }}
    {{- if $hasCA }}
    # All files of the folder count in addition to the image's own bundle.
    - name: SSL_CERT_FILE
      value: /etc/ssl/certs/ca-certificates.crt
    - name: SSL_CERT_DIR
      value: /etc/ssm-session-operator/ca
    {{- end }}
    {{- if and (not $drains) (or $proxy.url $proxy.secret) }}
    - name: HTTPS_PROXY
      {{- if $proxy.url }}
      value: {{ $proxy.url | quote }}
      {{- else }}
      valueFrom:
        secretKeyRef:
          name: {{ $proxy.secret }}
          key: {{ $proxy.key }}
      {{- end }}
    - name: NO_PROXY
      value: {{ include "ssm.noProxy" $root | quote }}
    {{- end }}
    {{- with $values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if not $drains }}
    ports:
    - name: admin
      containerPort: 8080
      protocol: TCP
    {{- /* It asks for an answer alone: what a restart would not mend does not fail it. */}}
    livenessProbe:
      httpGet:
        path: /livez
        port: admin
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    readinessProbe:
      httpGet:
        path: /readyz
        port: admin
      periodSeconds: 5
      timeoutSeconds: 5
    {{- end }}
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      {{- if not $root.Values.openshift }}
      runAsUser: 65532
      runAsGroup: 65532
      {{- end }}
      capabilities:
        drop: [ALL]
      seccompProfile:
        type: RuntimeDefault
    {{- if or $hasCA $values.volumeMounts }}
    volumeMounts:
    {{- if $hasCA }}
    - name: custom-ca
      mountPath: /etc/ssm-session-operator/ca
      readOnly: true
    {{- end }}
    {{- with $values.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
  nodeSelector:
    {{- /* What the image is for. */}}
    {{- merge (deepCopy $values.nodeSelector) (dict "kubernetes.io/os" "linux") | toYaml | nindent 4 }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $values.affinity }}
  affinity:
    {{- toYaml $values.affinity | nindent 4 }}
  {{- else if not $drains }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "ssm.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ $component.name }}
          # Only pods of the same revision count: in an upgrade those of the old one are about to go.
          matchLabelKeys: [pod-template-hash]
  {{- end }}
  {{- if not $drains }}
  topologySpreadConstraints:
    {{- if $values.topologySpreadConstraints }}
    {{- toYaml $values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - topologyKey: topology.kubernetes.io/zone
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "ssm.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $component.name }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- if or $hasCA $values.volumes }}
  volumes:
  {{- if $hasCA }}
  - name: custom-ca
    {{- if $ca.configMap }}
    configMap:
      name: {{ $ca.configMap }}
      items:
      - {key: {{ $ca.key }}, path: custom-ca.pem}
    {{- else }}
    secret:
      secretName: {{ $ca.secret }}
      items:
      - {key: {{ $ca.key }}, path: custom-ca.pem}
    {{- end }}
  {{- end }}
  {{- with $values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/*
What is reached without the proxy: the cluster, and what gives credentials in the pod and on the node. The program goes to
the API server, to loopback and to link-local addresses without a proxy anyway; what else is started in the pod may not.
*/}}
{{- define "ssm.noProxy" -}}
{{- $own := list "localhost" "127.0.0.0/8" "::1" "169.254.0.0/16" "fe80::/10" "fd00:ec2::/32" -}}
{{- $cluster := list "kubernetes" "kubernetes.default" ".svc" ".cluster.local" -}}
{{- concat $own $cluster .Values.proxy.noProxy | join "," -}}
{{- end }}
