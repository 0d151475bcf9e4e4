{{/* What each process needs from the API server, and nothing else. */}}

{{/* Everywhere: the classes, our own kind, and how the kinds are defined. */}}
{{- define "ssm.rules.cluster" -}}
- apiGroups: [ssm-operator.dev]
  resources: [ssmsessionclasses]
  verbs: [list, watch]
# Whether the kinds are as new as the program.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [ssmsessions.ssm-operator.dev, ssmsessionclasses.ssm-operator.dev, ssmlisteners.ssm-operator.dev]
  verbs: [get]
# Also where only some namespaces are watched, for one whose RoleBinding is gone before its SsmSessions are. patch takes our
# finalizer off these, update of their status says that nothing is made for them any more. An admission policy holds both to
# what is watched.
- apiGroups: [ssm-operator.dev]
  resources: [ssmsessions]
  verbs: [get, list, watch, patch]
- apiGroups: [ssm-operator.dev]
  resources: [ssmsessions/status]
  verbs: [update]
{{- end }}

{{/* In the namespaces whose sessions are served. */}}
{{- define "ssm.rules.watched" -}}
# For owner references that block deletion, where the API server checks them.
- apiGroups: [ssm-operator.dev]
  resources: [ssmsessions/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch, create, patch, delete]
{{- if .Values.openshift }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices/restricted]
  verbs: [create]
{{- end }}
# What happens again is counted in the Event that is there.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* In the operator's own namespace, for both. */}}
{{- define "ssm.rules.home" -}}
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [{{ .Release.Namespace }}]
  verbs: [get]
{{- end }}

{{- define "ssm.rules.controller" -}}
- apiGroups: [ssm-operator.dev]
  resources: [ssmlisteners]
  verbs: [list, watch, create, patch, delete]
# The relays' Leases, and the one of the controller that leads.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, update, delete]
{{- if .Values.watchNamespaces }}
# Elsewhere it may write Events everywhere.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
{{- end }}

{{- define "ssm.rules.relay" -}}
- apiGroups: [ssm-operator.dev]
  resources: [ssmlisteners]
  verbs: [get, list, watch]
- apiGroups: [ssm-operator.dev]
  resources: [ssmlisteners/status]
  verbs: [update]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}
